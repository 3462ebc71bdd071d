"""Scores against coco-caption's own numbers, plain slow oracles and invariants; and the command that prints them."""

import json
import random
import subprocess
import sys

import pytest
import sacrebleu

from captioner.cli.score import score
from captioner.errors import ConfigError, DataError
from captioner.metrics import METRICS, score_captions
from captioner.metrics.bleu import Bleu
from captioner.metrics.cider import CiderD
from tests.oracles.bleu import corpus_bleu
from tests.oracles.cider import cider_d

WORDS = ["a", "the", "dog", "man", "ball", "runs", "red", "on", "grass", "with"]


def corpus(pictures=12, seed=0):
    """Random (hypothesis tokens, references' tokens) with many matches; 1 to 5 references a picture."""
    rng = random.Random(seed)

    def sentence(low):
        return [rng.choice(WORDS) for _ in range(rng.randint(low, 12))]

    return [(sentence(1), [sentence(2) for _ in range(rng.randint(1, 5))]) for _ in range(pictures)]


def value(metric, pairs):
    return metric.aggregate([metric.statistics(*pair) for pair in pairs])


def as_text(pairs):
    hypotheses = {i: " ".join(h) for i, (h, _) in enumerate(pairs)}
    return hypotheses, {i: [" ".join(r) for r in refs] for i, (_, refs) in enumerate(pairs)}


@pytest.mark.parametrize("seed", range(5))
def test_bleu_is_what_counting_gives(seed):
    pairs = corpus(seed=seed)
    parts = value(Bleu(), pairs).parts
    for order in range(1, 5):
        assert parts[f"BLEU-{order}"] == pytest.approx(100 * corpus_bleu(pairs, order), abs=1e-9)


def test_bleu_is_sacrebleu_s():
    pairs = [(h, (refs * 5)[:5]) for h, refs in corpus(30)]  # sacrebleu's streams: equally many references
    streams = [[" ".join(refs[k]) for _, refs in pairs] for k in range(5)]
    theirs = sacrebleu.corpus_bleu([" ".join(h) for h, _ in pairs], streams, tokenize="none", smooth_method="none")
    assert value(Bleu(), pairs).value == pytest.approx(theirs.score, abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_cider_is_what_naive_loops_give(seed):
    pairs = corpus(seed=seed)
    metric = CiderD()
    assert metric.segments([metric.statistics(*p) for p in pairs]) == pytest.approx(cider_d(pairs), abs=1e-10)


def test_small_golden_numbers():
    """Golden: pycocoevalcap 1.2, ``Bleu(4).compute_score`` and ``Cider().compute_score`` on these tokens."""
    references = {
        "1": ["a man rides a horse on the beach", "a person riding a horse near the sea"],
        "2": ["two dogs play with a red ball", "a pair of dogs playing", "dogs run after a red ball"],
        "3": ["a plate of food on a table", "a white plate with rice and beans on a table"],
    }
    hypotheses = {"1": "a man riding a horse on a beach", "2": "two dogs play with a ball", "3": "a plate of rice"}
    bleu, cider = score_captions(hypotheses, references)
    assert [bleu.parts[f"BLEU-{n}"] for n in range(1, 5)] == pytest.approx(
        [79.94549623, 67.16765171, 57.58410751, 43.53396745], abs=1e-6
    )
    assert cider.value == pytest.approx(2.4590687715634103, abs=1e-8)


@pytest.mark.shared_data
def test_coco_caption_s_numbers_on_real_captions(shared_data):
    """Golden: pycocoevalcap 1.2 ``Bleu(4)`` and ``Cider()`` on the ``plain`` tokens of results_val2017.json against
    captions_val2017.json; and, after Stanford's own tokeniser, results_val2017_scores.json."""
    folder = shared_data / "coco"
    references = {}
    for item in json.loads((folder / "captions_val2017.json").read_text())["annotations"]:
        references.setdefault(item["image_id"], []).append(item["caption"])
    results = json.loads((folder / "results_val2017.json").read_text())
    bleu, cider = score_captions({item["image_id"]: item["caption"] for item in results}, references)
    same_tokens = [0.6606899346795165, 0.48355670829514097, 0.34963724607241614, 0.25540782353188035]
    assert [bleu.parts[f"BLEU-{n}"] / 100 for n in range(1, 5)] == pytest.approx(same_tokens, abs=1e-8)
    assert cider.value == pytest.approx(0.7445104029119995, abs=1e-8)
    published = json.loads((folder / "results_val2017_scores.json").read_text())["scores"]
    assert bleu.value / 100 == pytest.approx(published["BLEU-4"], abs=1e-8)
    assert cider.value == pytest.approx(published["CIDEr-D"], abs=1e-4)


@pytest.mark.parametrize("name", METRICS)
def test_invariants_of_every_metric(name):
    """Order of references, order of pictures, case and a final full stop change nothing; a perfect caption is best."""
    hypotheses, references = as_text(corpus())
    (base,) = score_captions(hypotheses, references, [name])
    turned = {i: refs[::-1] for i, refs in reversed(references.items())}
    shouted = {i: f"{text.upper()}." for i, text in hypotheses.items()}
    (other,) = score_captions(shouted, turned, [name])
    assert other.value == pytest.approx(base.value, abs=1e-9)
    (perfect,) = score_captions({i: refs[0] for i, refs in references.items()}, references, [name])
    assert perfect.value > base.value
    assert "images:12" in base.signature
    assert "refs:1-5" in base.signature
    assert "tok:plain" in base.signature
    assert "version:" in base.signature


def test_odd_captions_have_scores():
    """An empty caption, one picture alone, no match at all: 0, neither an exception nor not-a-number."""
    for hypothesis in ("", "zebra", "a dog"):
        for item in score_captions({"1": hypothesis}, {"1": ["a dog runs"]}):
            assert item.value == 0.0


def test_unequal_pictures_are_refused():
    with pytest.raises(DataError, match="different pictures: 2"):
        score_captions({"1": "a"}, {"1": ["a"], "2": ["b"]})
    with pytest.raises(DataError, match="no reference caption for 1"):
        score_captions({"1": "a"}, {"1": []})
    with pytest.raises(DataError, match="no captions"):
        score_captions({}, {})
    with pytest.raises(ConfigError, match="bleu, cider"):
        score_captions({"1": "a"}, {"1": ["a"]}, ["meteor"])


@pytest.fixture
def files(tmp_path):
    """A Karpathy file of three pictures, one numbered, and a writer of results files."""
    images = [
        {
            "filename": f"{n}.jpg",
            "filepath": "val",
            "split": split,
            "cocoid": n,
            "sentences": [{"raw": f"A {word} dog."}],
        }
        for n, split, word in ((1, "test", "red"), (2, "test", "blue"), (3, "val", "big"))
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))

    def results(*pairs):
        path = tmp_path / "results.json"
        path.write_text(json.dumps([{"image_id": key, "caption": text} for key, text in pairs]))
        return path, tmp_path / "dataset.json"

    return results


def test_command_matches_numbers_and_names(files, capsys):
    results, references = files((1, "a red dog"), ("photos/2.jpg", "a blue dog"))
    score(results, references, split="test", data_format="", metrics="bleu,cider", tokenizer="plain", as_json=True)
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert scores["BLEU-4"]["BLEU-3"] == pytest.approx(100)
    assert "images:2|refs:1|tok:plain" in scores["CIDEr-D"]["signature"]
    assert err == ""


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "captioner", "score", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def test_command_reports_what_does_not_match(files):
    results, references = files((1, "a red dog"), ("9.jpg", "a blue dog"))
    done = run(results, "--references", references)
    assert done.returncode == 1
    assert "CIDEr-D|images:1" in done.stdout
    assert "no references for 1 of 2 results" in done.stderr
    assert "9.jpg" in done.stderr
    assert "2 of 3 pictures have no result" in done.stderr
    assert "0 by definition" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", "line 1: not valid JSON"),
        ("{}", "expected a list"),
        ("[]", "no captions"),
        ('[{"image_id": 1}]', "entry 0: needs image_id"),
        ('[{"image_id": 1, "caption": "a"}, {"image_id": "1", "caption": "b"}]', "a second caption for 1"),
        ('[{"image_id": 77, "caption": "a"}]', "no result has references: .* such as 77, references of 1.jpg"),
    ],
)
def test_wrong_results_files_are_explained(files, content, message):
    results, references = files()
    results.write_text(content)
    with pytest.raises(DataError, match=message):
        score(results, references, split="", data_format="", metrics="bleu", tokenizer="plain", as_json=False)


def test_scoring_does_not_load_torch(files):
    """Loading it takes longer than scoring."""
    results, references = files((1, "a red dog"), (2, "a blue dog"))
    code = (
        "import sys; from captioner.cli.app import main; "
        f"sys.argv = ['captioner', 'score', {str(results)!r}, '-r', {str(references)!r}]; status = main(); "
        "assert status == 0, status; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
