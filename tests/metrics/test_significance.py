"""Significance tests against sacreBLEU's, and groups of runs."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from captioner.errors import ConfigError, DataError
from captioner.metrics import References
from captioner.metrics.significance import compare_systems, holm
from tests.metrics.corpora import WORDS, as_text, corpus


def noisy(references, noise, seed):
    rng = random.Random(seed)
    return {
        image: " ".join(word if rng.random() > noise else rng.choice(WORDS) for word in texts[0].split())
        for image, texts in references.items()
    }


@pytest.fixture(scope="module")
def systems():
    """References of 80 images, and captions of three systems, of which the first two are alike."""
    pairs = [(h, (refs * 5)[:5]) for h, refs in corpus(80, seed=7, shortest=5)]
    references = as_text(pairs)[1]
    return references, {
        name: noisy(references, noise, seed) for seed, (name, noise) in enumerate([("a", 0.5), ("b", 0.5), ("c", 0.1)])
    }


@pytest.mark.parametrize("kind", ["bs", "ar"])
def test_significance_of_bleu_is_sacrebleu_s(systems, kind):
    """sacreBLEU's own classes on the same data: p-values to the last digit, its intervals are of single precision."""
    references, captions = systems
    streams = [[texts[k] for texts in references.values()] for k in range(5)]
    metric = {"BLEU": BLEU(tokenize="none", smooth_method="none")}
    _, theirs = PairedTest([(n, list(c.values())) for n, c in captions.items()], metric, streams, kind, 2000)()
    prepared = References(references, "plain")
    scored = {name: prepared.score(texts, ["bleu"]) for name, texts in captions.items()}
    ours = compare_systems(scored, resamples=2000, trials=2000)
    for name, result in zip(theirs["System"], theirs["BLEU"], strict=True):
        found = ours[name]["BLEU-4"]
        assert found.score == pytest.approx(result.score, abs=1e-9)
        assert (found.p_bootstrap if kind == "bs" else found.p_randomization) == result.p_value
        if kind == "bs":
            assert (found.mean, found.interval) == pytest.approx((result.mean, result.ci), abs=1e-4)


def test_significance_of_every_score(systems):
    references, captions = systems
    prepared = References(references)
    scored = {name: prepared.score(texts) for name, texts in captions.items()}
    found = compare_systems({**scored, "again": scored["a"]}, trials=1000)
    for score, estimate in found["c"].items():
        assert estimate.p_bootstrap < 0.05 and estimate.p_randomization < 0.05, score
        assert found["b"][score].p_bootstrap > 0.05 and found["b"][score].p_randomization > 0.05, score
        assert estimate.low < estimate.score < estimate.high
        assert (found["a"][score].p_bootstrap, found["a"][score].p_randomization) == (None, None)
        assert (found["again"][score].p_bootstrap, found["again"][score].p_randomization) == (1, 1)  # the same captions
    with pytest.raises(DataError, match="b was scored on other images"):
        compare_systems({"a": scored["a"], "b": prepared.score(captions["b"], ["bleu"])})
    with pytest.raises(DataError, match="no system"):
        compare_systems({})


def test_few_different_images_are_not_significant(systems):
    """Would catch p-values that leave out ties: they are 1 / (n + 1) where exact sign tests give 1 and 1/4."""
    references, captions = systems
    prepared = References(references)
    base = prepared.score(captions["b"], ["rouge"])
    for differing, exact in ((1, 1.0), (3, 0.25)):
        better = dict(captions["b"])
        for image in list(references)[:differing]:
            better[image] = references[image][0]
        others = compare_systems({"base": base, "better": prepared.score(better, ["rouge"])}, resamples=200)
        found = others["better"]["ROUGE-L"]
        assert found.score > base["ROUGE-L"].value
        assert found.p_randomization == pytest.approx(exact, abs=0.02)
        assert found.p_bootstrap > 0.02


def test_groups_are_means_over_their_runs(systems, monkeypatch):
    references, captions = systems
    prepared = References(references)
    scored = {name: prepared.score(texts) for name, texts in captions.items()}
    found = compare_systems({"low": [scored["a"], scored["b"]], "high": [scored["c"], scored["c"]], "one": scored["c"]})
    for score, estimate in found["low"].items():
        pair = [scored[name][score].value for name in "ab"]
        assert estimate.score == pytest.approx(np.mean(pair))
        assert estimate.spread == pytest.approx(np.std(pair, ddof=1)) and estimate.runs == 2
        assert found["high"][score].spread == pytest.approx(0)
        assert found["high"][score].p_randomization < 0.05
        assert found["one"][score].p_randomization is None and found["one"][score].spread is None
        assert found["one"][score].p_bootstrap == found["high"][score].p_bootstrap
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    other = compare_systems({"a": scored["a"]}, trials=0)["a"]["CIDEr-D"]
    assert other.low != compare_systems({"a": scored["a"]}, trials=0, seed=12345)["a"]["CIDEr-D"].low
    monkeypatch.setenv("SACREBLEU_SEED", "x")
    with pytest.raises(ConfigError, match="SACREBLEU_SEED=x"):
        compare_systems(scored)


def test_holm_corrects_for_the_number_of_comparisons():
    """Would catch all p-values multiplied alike (Bonferroni), another order, and values that fall or exceed 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1] and holm([0.2]) == [0.2] and holm([]) == []
