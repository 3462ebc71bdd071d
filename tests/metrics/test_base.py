"""What holds for every metric, and what cannot be scored."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from captioner.errors import ConfigError, DataError, MissingDependency
from captioner.metrics import METRICS, References, score_captions
from captioner.metrics.base import FAST
from tests.metrics.corpora import as_text, corpus
from tests.oracles.bleu import corpus_bleu


@pytest.mark.parametrize("name", FAST)
def test_invariants_of_every_metric(name):
    """Order of references, order of images, case and a final full stop change nothing; a perfect caption is best."""
    hypotheses, references = as_text(corpus(shortest=4))
    base = score_captions(hypotheses, references, [name])
    turned = {i: refs[::-1] for i, refs in reversed(references.items())}
    shouted = {i: f"{text.upper()}." for i, text in hypotheses.items()}
    other = score_captions(shouted, turned, [name])
    perfect = score_captions({i: refs[0] for i, refs in references.items()}, references, [name])
    for score in base.scores:
        assert other[score].value == pytest.approx(base[score].value, abs=1e-9)
        assert other[score].signature == base[score].signature
        assert perfect[score].value > base[score].value
        assert base[score].signature.startswith("images:12|refs:1-5|tok:")
        assert "version:" in base[score].signature
    if name != "cider":
        assert [score.value for score in perfect.scores.values()] == pytest.approx([100] * len(perfect.scores))
    single = {i: refs[:1] for i, refs in references.items()}
    best = score_captions({i: refs[0] for i, refs in single.items()}, single, [name])
    assert [score.value for score in best.scores.values()] == pytest.approx(
        [1000 if name == "cider" else 100] * len(best.scores)
    )


@pytest.mark.parametrize("name", FAST)
def test_weights_are_images_seen_more_than_once(name):
    """Would catch bootstrap resamples that are no scores of any set of images."""
    pairs = corpus(seed=3)
    scored = score_captions(*as_text(pairs), [name])
    chosen = [0, 0, 3, 5, 5, 5, 11]
    weights = np.bincount(chosen, minlength=len(pairs)).astype(float)
    found = scored.reweighted(weights[None])
    if name == "bleu":
        assert found["BLEU-4"][0] == pytest.approx(100 * corpus_bleu([pairs[i] for i in chosen], 4), abs=1e-9)
    else:
        (score,) = scored.scores
        assert found[score][0] == pytest.approx(scored.per_image()[score][chosen].mean(), abs=1e-9)


def test_odd_captions_have_scores():
    """An empty caption, no match at all: 0, neither an exception nor not-a-number."""
    for hypothesis in ("", "zebra", "."):
        found = score_captions({1: hypothesis, 2: ""}, {1: ["a dog runs"], 2: ["."]}, ["bleu", "cider"])
        assert {item.value for item in found.scores.values()} == {0.0}


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(DataError, match="differ in 1 images, such as 2"):
        score_captions({"1": "a"}, {"1": ["a"], "2": ["b"]})
    with pytest.raises(DataError, match="no reference caption for 1"):
        score_captions({"1": "a"}, {"1": []})
    with pytest.raises(DataError, match="a list of sentences, not one text, for 1"):
        score_captions({"1": "a dog"}, {"1": "a dog runs"})
    with pytest.raises(DataError, match="no captions"):
        score_captions({}, {})
    with pytest.raises(ConfigError, match="bleu, cider, rouge, meteor, spice"):
        score_captions({"1": "a"}, {"1": ["a"]}, ["blue"])
    with pytest.raises(DataError, match="is 0 for a single image"):
        score_captions({"1": "a"}, {"1": ["a"]}, ["cider"])


def test_metrics_that_cannot_run_are_named(monkeypatch):
    """Would catch another metric under their names, or a table without them that does not say why."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    told = []
    found = References({1: ["a dog"], 2: ["a cat"]}).score({1: "a dog", 2: "a cat"}, list(METRICS), told.append)
    assert set(found.scores) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr-D", "ROUGE-L"}
    assert [str(error).partition(":")[0] for error in told] == ["METEOR", "SPICE"]
    with pytest.raises(MissingDependency, match="needs a Java runtime"):
        score_captions({1: "a dog"}, {1: ["a dog"]}, ["meteor"])
