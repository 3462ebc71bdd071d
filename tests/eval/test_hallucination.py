"""eval.hallucination: objects that captions name and photographs do not show."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from captioner.data.results import Matched
from eval.hallucination import hallucination, main, read_class_words, read_detected

CLASSES = {"person": ["man", "skier"], "skis": ["skis", "skier"], "dog": ["dog", "puppy"], "couch": ["couch"]}
CAPTIONS = {
    "000000000009.jpg": "a man and a dog, a dog on a couch",
    "b.jpg": "a skier in the snow",
    "unseen.jpg": "a couch",
}
REFERENCES = {"000000000009.jpg": ("a puppy sleeps", "it is white"), "b.jpg": ("snow",), "unseen.jpg": ("x",)}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in ("words.json", "detections.jsonl", "captions.tsv", "references.tsv")}
    paths["words.json"].write_text(json.dumps(CLASSES))
    boxes = [{"class": "person", "score": 0.9, "box": []}, {"class": "couch", "score": 0.2, "box": []}]
    skis = [{"class": "skis", "score": 0.3, "box": []}]
    lines = [{"id": 9, "detections": boxes}, {"id": "b.jpg", "detections": skis}]
    paths["detections.jsonl"].write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    paths["captions.tsv"].write_text("".join(f"{key}\t{text}\n" for key, text in CAPTIONS.items()))
    paths["references.tsv"].write_text("".join(f"{k}\t{text}\n" for k, texts in REFERENCES.items() for text in texts))
    return paths


def test_objects_are_there_if_a_detector_or_a_person_says_so(files: dict[str, Path]) -> None:
    """Would catch objects counted twice, weak detections, synonyms taken for inventions, and photographs that the
    detector never saw.
    """
    words, detected = read_class_words(files["words.json"]), read_detected(files["detections.jsonl"], 0.25)
    found = hallucination(Matched(CAPTIONS, REFERENCES), words, detected)
    assert (found.captions, found.named, found.wrong) == (2, 4, 1)
    assert found.invented == Counter({"couch": 1})
    assert found.row == ["2", "2.00", "25.0", "50.0", "couch (1)"]


def test_names_of_two_words() -> None:
    """Would catch a hot dog counted as a dog that is not there, and an invented stop sign that is not counted."""
    words = {name: frozenset([name]) for name in ("dog", "hot dog", "stop sign")}
    captions = {"a": "a hot dog on a plate", "b": "a stop sign by the road"}
    references = {"a": ("a frankfurter with mustard",), "b": ("an empty road",)}
    found = hallucination(Matched(captions, references), words, {"a": ["hot dog"], "b": []})
    assert (found.named, found.invented) == (2, Counter({"stop sign": 1}))


def test_the_command(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a bad line that is passed over in silence, and detections of other photographs that give zeros."""
    inputs = [files["captions.tsv"], "-r", files["references.tsv"], "--detections", files["detections.jsonl"]]
    arguments = [str(value) for value in (*inputs, "--class-words", files["words.json"])]
    assert main(arguments) == 0
    assert "25.0" in capsys.readouterr().out
    files["detections.jsonl"].write_text('{"id": 5, "detections": []}\n')
    assert main(arguments) == 1
    assert "no captioned photograph has detections" in capsys.readouterr().err
    files["detections.jsonl"].write_text("{}\n")
    assert main(arguments) == 1
    assert "line 1: expected" in capsys.readouterr().err
