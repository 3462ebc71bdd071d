"""Metrics against plain slow oracles, sacreBLEU, coco-caption's own numbers and invariants; significance tests."""

import json
import random
import shutil

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from captioner.errors import ConfigError, DataError, MissingDependency
from captioner.metrics import METRICS, References, score_captions
from captioner.metrics.base import FAST, find_metric
from captioner.metrics.cider import CiderD, DocumentFrequency
from captioner.metrics.corpus import Corpus
from captioner.metrics.diversity import diversity
from captioner.metrics.java import Meteor, Spice, find_jar, run_java
from captioner.metrics.retrieval import retrieval_scores
from captioner.metrics.significance import compare_systems
from tests.oracles.bleu import corpus_bleu
from tests.oracles.cider import cider_d
from tests.oracles.rouge import rouge_l

WORDS = ["a", "the", "dog", "man", "ball", "runs", "red", "on", "grass", "with"]


def corpus(images=12, seed=0, shortest=0):
    """Random (hypothesis tokens, references' tokens) with many matches; 1 to 5 references an image."""
    rng = random.Random(seed)

    def sentence():
        return [rng.choice(WORDS) for _ in range(rng.randint(shortest, 12))]

    return [(sentence(), [sentence() for _ in range(rng.randint(1, 5))]) for _ in range(images)]


def count(pairs):
    return Corpus([hypothesis for hypothesis, _ in pairs], [references for _, references in pairs])


def values(metric, pairs):
    """Scores over all images, and those of each, in percent."""
    rows = metric.statistics(count(pairs))
    return metric.aggregate(rows.sum(0)), metric.aggregate(rows)


def as_text(pairs):
    hypotheses = {i: " ".join(h) for i, (h, _) in enumerate(pairs)}
    return hypotheses, {i: [" ".join(r) for r in refs] for i, (_, refs) in enumerate(pairs)}


@pytest.mark.parametrize("seed", range(8))
def test_bleu_is_what_counting_gives(seed):
    """Empty captions and references among them; would catch clipping over the wrong image or the wrong length."""
    pairs = corpus(seed=seed)
    whole, each = values(find_metric("bleu"), pairs)
    for order in range(1, 5):
        assert whole[f"BLEU-{order}"] == pytest.approx(100 * corpus_bleu(pairs, order), abs=1e-9)
        alone = [100 * corpus_bleu([pair], order) if pair[0] else 0 for pair in pairs]
        assert each[f"BLEU-{order}"] == pytest.approx(alone, abs=1e-9)


def test_bleu_is_sacrebleu_s():
    pairs = [(h, (refs * 5)[:5]) for h, refs in corpus(30, shortest=1)]  # its streams: equally many references
    streams = [[" ".join(refs[k]) for _, refs in pairs] for k in range(5)]
    theirs = sacrebleu.corpus_bleu([" ".join(h) for h, _ in pairs], streams, tokenize="none", smooth_method="none")
    ours, _ = values(find_metric("bleu"), pairs)
    assert ours["BLEU-4"] == pytest.approx(theirs.score, abs=1e-9)
    assert ours["brevity_penalty"] == pytest.approx(theirs.bp, abs=1e-12)
    assert (ours["length"], ours["reference_length"]) == (theirs.sys_len, theirs.ref_len)


def test_bleu_from_the_counts_that_coco_caption_printed():
    """Golden: the counts and scores that coco-caption's example shows for 1,000 images of COCO val2014."""
    counts = [9893, 9855, 5732, 2510, 1043, 423, 9893, 8893, 7893, 6893]
    found = find_metric("bleu").aggregate(np.array(counts, float))
    assert [round(float(found[f"BLEU-{n}"]) / 100, 3) for n in range(1, 5)] == [0.579, 0.404, 0.279, 0.191]


@pytest.mark.parametrize("seed", range(8))
def test_cider_is_what_naive_loops_give(seed):
    pairs = corpus(seed=seed)
    _, each = values(CiderD(), pairs)
    assert each["CIDEr-D"] == pytest.approx(100 * np.array(cider_d(pairs)), abs=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_cider_with_the_frequencies_of_another_corpus(seed):
    """Would catch n-grams mixed up between two corpora, of which each numbers its words by itself."""
    pairs, others = corpus(seed=seed), [refs for _, refs in corpus(9, seed=seed + 50)]
    others[0] = [["zebra", *sentence] for sentence in others[0]]
    pairs.append((["unknown", "words", "here"], [["unknown", "words"]]))
    rows = CiderD(DocumentFrequency(others)).statistics(count(pairs))
    assert rows[:, 0] == pytest.approx(cider_d(pairs, documents=others), abs=1e-10)
    own = CiderD(DocumentFrequency([refs for _, refs in pairs])).statistics(count(pairs))
    assert own == pytest.approx(CiderD().statistics(count(pairs)), abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_rouge_is_what_the_table_gives(seed, monkeypatch):
    """Pieces of seven pairs, so that several are joined."""
    monkeypatch.setattr("captioner.metrics.rouge.BATCH_SIZE", 7)
    pairs = corpus(seed=seed)
    _, each = values(find_metric("rouge"), pairs)
    assert each["ROUGE-L"] == pytest.approx([100 * rouge_l(*pair) for pair in pairs], abs=1e-10)


def test_small_golden_numbers():
    """Golden: pycocoevalcap 1.2, ``Bleu(4)``, ``Cider()`` and ``Rouge()`` ``.compute_score`` on these tokens."""
    references = {
        "1": ["a man rides a horse on the beach", "a person riding a horse near the sea"],
        "2": ["two dogs play with a red ball", "a pair of dogs playing", "dogs run after a red ball"],
        "3": ["a plate of food on a table", "a white plate with rice and beans on a table"],
    }
    hypotheses = {"1": "a man riding a horse on a beach", "2": "two dogs play with a ball", "3": "a plate of rice"}
    found = score_captions(hypotheses, references)
    assert [found[f"BLEU-{n}"].value for n in range(1, 5)] == pytest.approx(
        [79.94549623, 67.16765171, 57.58410751, 43.53396745], abs=1e-6
    )
    assert found["CIDEr-D"].fraction == pytest.approx(2.4590687715634103, abs=1e-8)
    assert found["ROUGE-L"].fraction == pytest.approx(0.7267780416101312, abs=1e-9)


@pytest.mark.shared_data
def test_coco_caption_s_numbers_on_real_captions(shared_data):
    """Golden: pycocoevalcap 1.2 (PTBTokenizer 3.4.1, Java 17) on results_val2017.json against captions_val2017.json,
    in results_val2017_scores.json. METEOR, which needs Java, has its own test."""
    folder = shared_data / "coco"
    references = {}
    for item in json.loads((folder / "captions_val2017.json").read_text())["annotations"]:
        references.setdefault(item["image_id"], []).append(item["caption"])
    results = json.loads((folder / "results_val2017.json").read_text())
    found = score_captions({item["image_id"]: item["caption"] for item in results}, references, tokenizer="ptb")
    golden = json.loads((folder / "results_val2017_scores.json").read_text())["scores"]
    golden.pop("METEOR")
    assert {name: found[name].fraction for name in golden} == pytest.approx(golden, abs=1e-9)


def test_blanks_inside_tokens():
    """Golden: pycocoevalcap 1.2 ``Bleu(4)``, ``Cider()`` and ``Rouge()`` on these tokens, of which two hold a no-break
    space as the PTB tokenizer leaves it: the first two part them there, ROUGE-L does not."""
    parted, whole = ["on", "22", "3/4", "st"], ["on", "22\u00a03/4", "st"]
    pairs = [(whole, [parted]), (["a", "22\u00a0dog"], [["a", "22\u00a0dog"]])]
    golden = {"BLEU-4": 0.9999999994380957, "CIDEr-D": 8.75, "ROUGE-L": 0.7785388127853881}
    for name, score in zip(FAST, golden, strict=True):
        found, _ = values(find_metric(name), pairs)
        assert found[score] / 100 == pytest.approx(golden[score], abs=1e-9)


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


@pytest.mark.slow  # the program takes ten seconds to start
@pytest.mark.java
def test_meteor_is_the_program_s_own():
    """The scores of single captions and of all, as the program computes them from the counts that it gave."""
    try:
        jar = find_jar("METEOR", "meteor/meteor-1.5.jar")
    except MissingDependency as error:
        pytest.skip(str(error))
    odd = [
        ("the dogs ran", "a dog is running"),
        ("a dog", "a dog"),
        ("café ||| dog", "café"),
        ("", "a"),
        ("zebra", "a"),
    ]
    pairs = [*corpus(6, seed=1), *((one.split(), [other.split()]) for one, other in odd)]
    whole, each = values(Meteor(), pairs)
    options = ["-", "-", "-stdio", "-l", "en", "-norm"]
    asked = [
        " ||| ".join(["SCORE", *(" ".join(t).replace("|||", "") for t in [*refs, hyp])]) + "\n" for hyp, refs in pairs
    ]
    counts = run_java("METEOR", jar, options, "1G", "".join(asked)).splitlines()
    theirs = run_java("METEOR", jar, options, "1G", " ||| ".join(["EVAL", *counts]) + "\n").split()
    assert [*each["METEOR"], whole["METEOR"]] == pytest.approx([100 * float(score) for score in theirs], abs=1e-9)


def fake_java(folder, monkeypatch, program):
    """A ``java`` first on the path, and a package that holds both jars and SPICE's models."""
    package = folder / "pycocoevalcap"
    for name in (
        "meteor/meteor-1.5.jar",
        "spice/spice-1.0.jar",
        "spice/lib/stanford-corenlp-3.6.0-models.jar",
        "__init__.py",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    monkeypatch.syspath_prepend(str(folder))
    (folder / "java").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_spice_is_read_by_image(tmp_path, monkeypatch):
    """Its answers come in any order, and are not a number where there is nothing to compare. The program is played by
    a script: the real one needs models that cannot be had here."""
    answer = [{"image_id": n, "scores": {"All": {"f": f}}} for n, f in ((2, 0.25), (0, "NaN"), (1, 0.75))]
    fake_java(tmp_path, monkeypatch, f"[ $3 = -jar ] && echo '{json.dumps(answer)}' > $7")
    rows = Spice().statistics(count(corpus(3)))
    assert rows.tolist() == [[0, 0], [0.75, 1], [0.25, 1]]
    assert Spice().aggregate(rows.sum(0))["SPICE"] == pytest.approx(50)
    assert Spice().aggregate(rows)["SPICE"].tolist() == [0, 75, 25]


@pytest.mark.parametrize("metric", [Meteor, Spice])
def test_a_java_program_that_breaks_is_one_line(tmp_path, monkeypatch, metric):
    fake_java(tmp_path, monkeypatch, "echo 'Exception in thread main' >&2; echo at nowhere >&2; exit 1")
    with pytest.raises(MissingDependency, match="cannot run here: Exception in thread main$"):
        metric().statistics(count(corpus(3)))


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


def test_diversity():
    hypotheses = [["a", "dog"], ["a", "dog"], ["a", "red", "zebra"], []]
    references = [[["a", "dog", "runs"], ["dog"]], [["a", "cat"]], [["red"]], [["on"]]]
    found = diversity(hypotheses, references, [["a", "dog"], ["a", "cat"]])
    assert found == {"distinct": 75.0, "novel": 50.0, "vocabulary": 50.0, "words": 4, "length": 1.75}
    assert "novel" not in diversity(hypotheses, references)


def test_retrieval():
    assert retrieval_scores([1, 2, 5, 6, 11]) == {"R@1": 20.0, "R@5": 60.0, "R@10": 80.0, "median rank": 5.0}
    for wrong in ([], [0, 1], [[1]]):
        with pytest.raises(DataError, match="from 1 on"):
            retrieval_scores(wrong)
