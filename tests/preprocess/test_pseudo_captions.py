"""Captions that photographs without any get from sentences about others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from captioner.backbones.efficientnet_lite import VARIANTS, EfficientNetLite, spec_of
from captioner.features.writer import FeatureWriter
from preprocess import pseudo_captions
from preprocess.pseudo_captions import Nouns, WordNet, assign, linear_words, read_sentences
from tests.tiny import save_images

WORDNET = """\
  1 the license
00000001 03 n 01 entity 0 000 | what is
00000002 05 n 02 animal 0 beast 0 001 @ 00000001 n 0000 | what lives
00000003 05 n 01 dog 0 001 @ 00000002 n 0000 | what barks
00000004 05 n 02 toy_poodle 0 poodle 0 001 @ 00000003 n 0000 | what barks at less
00000005 05 n 01 pony 0 001 @ 00000002 n 0000 | what neighs
00000006 05 n 01 dining_table 0 001 @ 00000001 n 0000 | where one eats
"""
THINGS = ("dog", "pony", "table")


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    path = tmp_path / "data.noun"
    path.write_text(WORDNET)
    return path


def test_nouns_of_sentences_and_of_classes(wordnet: Path) -> None:
    """Would catch plurals and names of two words that are missed, and hypernyms that weigh as much as the class."""
    words = WordNet.read(wordnet)
    nouns = Nouns(words, {"dining table": ["dining table", "table"]}, ["a dog and two beasts by a table"] * 8)
    assert nouns.of("Two ponies, a toy poodle under the dining table") == {"pony", "poodle", "dining table"}
    assert words.kinds("00000004") == {
        "toy poodle": 1,
        "poodle": 1,
        "dog": 0.85,
        "beast": 0.85**2,
    }  # animal: too general
    weights = nouns.of_classes(["00000004"])[0]
    assert weights[nouns.vectors.column["dog"]] == pytest.approx(0.85)


def test_things_that_nothing_shows_count_against_a_sentence(wordnet: Path) -> None:
    """Would catch captions that name a laptop beside every person, because people and laptops go together."""
    pool = ["a dog by a table"] * 8 + ["a pony and a poodle"] * 8
    nouns = Nouns(WordNet.read(wordnet), {"dog": ["dog"], "table": ["table"], "zebra": ["zebra"]}, pool)
    seen = torch.zeros(2, len(nouns.vectors.column))
    seen[0, nouns.vectors.column["dog"]] = 0.9  # the second photograph shows nothing
    photographs, sentences = nouns.unseen(seen)
    scores = (photographs @ sentences.to_dense().t())[:, [0, 8]]
    assert scores.tolist() == [[-1, 0], [-2, 0]]  # a pony is no class of the detector, so nothing speaks against it


def test_best_pairs_come_first_and_no_sentence_is_given_often() -> None:
    """Would catch a sentence that fits everything a little and is given to every photograph."""
    chosen = torch.tensor([[0, 1], [0, 1], [0, 2]])
    score = torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.7, 0.2]])
    assert assign(chosen, score, count=1, most=2) == [[0], [0], [2]]
    assert assign(chosen, score, count=2, most=1) == [[0], [1], [2]]


def test_a_photograph_does_not_teach_the_map_that_judges_it() -> None:
    """Would catch captions that confirm themselves: words found again in the very photographs that had them."""
    features = torch.randn(800, 40, generator=torch.manual_seed(0))
    random = torch.rand(600, 50, generator=torch.manual_seed(1))
    words = (features @ torch.randn(40, 50, generator=torch.manual_seed(2)) / 40).clamp(min=0)
    taught = torch.arange(600)
    assert abs(correlation(linear_words(features, taught, random)[:600], random)) < 0.05
    found = linear_words(features, taught, words[:600])
    assert correlation(found[:600], words[:600]) > 0.8 and correlation(found[600:], words[600:]) > 0.8


def correlation(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Between the differences from each word's mean."""
    pair = [(each - each.mean(0)).flatten() for each in (found, wanted)]
    return float(torch.corrcoef(torch.stack(pair))[0, 1])


def test_sentences_of_dev_photographs_are_given_to_no_other(tmp_path: Path) -> None:
    """Would catch dev sentences in the training captions, and numbers that do not find their photographs."""
    for number in (7, 9):
        (tmp_path / f"{number:012}.jpg").write_bytes(b"")
    sentences = tmp_path / "sentences.tsv"
    sentences.write_text("7\ta dog\n9\ta pony\n9\ta horse\n11\ta table\n")
    photographs, pool = read_sentences(sentences, tmp_path, dev=1)
    (hidden,) = photographs.dev
    assert photographs.own == {"000000000007.jpg": ["a dog"], "000000000009.jpg": ["a pony", "a horse"]}
    assert pool == {7: ["a pony", "a horse", "a table"], 9: ["a dog", "a table"]}[int(Path(hidden).stem)]


@pytest.fixture
def inputs(tmp_path: Path, wordnet: Path) -> list[str]:
    """Arguments for twelve photographs of dogs, ponies or tables, one of each with sentences; sentences of all."""
    photos = tmp_path / "photos"
    for number, path in enumerate(save_images(photos, 12)):
        path.rename(photos / f"{number:012}.png")
    torch.manual_seed(0)
    network = EfficientNetLite(VARIANTS["0"])
    rows = torch.randn(3, 1280)
    with torch.no_grad():
        network.classifier.weight.zero_()[:3] = rows / 100
    save_file(network.state_dict(), tmp_path / "lite0.safetensors")
    with FeatureWriter(tmp_path / "lite0.h5", spec_of("0"), "0") as store:
        for number in range(12):
            store.add(f"{number:012}.png", (rows[number % 3] + torch.randn(1280) / 9).numpy().astype(np.float32))
    lines = [f"{number}\ta {THINGS[number % 3]} here {number}\n" for number in (*range(3), *range(100, 160))]
    (tmp_path / "sentences.tsv").write_text("".join(lines))
    boxes = [{"class": "dining table", "score": 0.9, "box": [0, 0, 1, 1]}]
    seen = [{"id": number, "detections": boxes if number % 3 == 2 else []} for number in range(12)]
    (tmp_path / "detections.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in seen))
    (tmp_path / "words.json").write_text(json.dumps({"dining table": ["table"]}))
    synsets = {str(k): [f"n{number:08}", "x"] for k, number in enumerate((4, 5, 6))}
    synsets |= {str(k): ["n00000001", "entity"] for k in range(3, 1000)}
    (tmp_path / "imagenet.json").write_text(json.dumps(synsets))
    options = {
        "--photos": photos,
        "--sentences": tmp_path / "sentences.tsv",
        "--detections": tmp_path / "detections.jsonl",
        "--class-words": tmp_path / "words.json",
        "--imagenet": tmp_path / "imagenet.json",
        "--features": tmp_path / "lite0.h5",
        "--weights": tmp_path / "lite0.safetensors",
        "--wordnet": wordnet,
        "--dev": 2,
    }
    return [str(value) for option in options.items() for value in option]


def test_photographs_get_sentences_about_what_they_show(
    tmp_path: Path, inputs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch features, classes or detections of another photograph, in both kinds of run."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert pseudo_captions.main([*inputs, "-o", str(first), "--text", str(tmp_path / "text.txt")]) == 0
    assert pseudo_captions.main([*inputs, "--learned", str(first), "-o", str(second)]) == 0
    for path in (first, second):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == 12 and Counter(line["split"] for line in lines) == {"train": 10, "val": 2}
        for line in lines:
            thing = THINGS[int(Path(line["image"]).stem) % 3]
            assert line["captions"] and all(f"a {thing} here" in text for text in line["captions"])
    hidden = {line["captions"][0] for line in lines if line["split"] == "val"}
    assert not hidden & {*(tmp_path / "text.txt").read_text().splitlines()}
    assert capsys.readouterr().err.count("sentence of each val photograph, which is given to none: BLEU-4") == 2


def test_bad_lines_are_named(tmp_path: Path, inputs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sentences.tsv").write_text("7\ta dog\nno tab\n")
    assert pseudo_captions.main([*inputs, "-o", str(tmp_path / "out.jsonl")]) == 1
    assert "line 2: expected image<TAB>sentence" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
