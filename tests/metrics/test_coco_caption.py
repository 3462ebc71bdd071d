"""Golden numbers of pycocoevalcap for all metrics."""

from __future__ import annotations

import json

import pytest

from captioner.metrics import score_captions
from captioner.metrics.base import FAST, find_metric
from tests.metrics.corpora import values


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
    found = score_captions({item["image_id"]: item["caption"] for item in results}, references, tokenizer="ptb-lite")
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
