"""Properties of the readers of results and references, over generated captions and hostile files."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captioner.data import READERS, read_dataset
from captioner.data.results import match, read_references, read_results
from captioner.errors import DataError, UsageError

pytest.importorskip("pycocotools")

TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff\u0085"), max_size=20
)
CAPTION = TEXT.map(lambda text: " ".join(text.split())).filter(bool)
NAME = st.from_regex(r"[a-z0-9_]{1,8}\.jpg", fullmatch=True)
CAPTIONS = st.dictionaries(NAME, CAPTION, min_size=1, max_size=5)
REFERENCES = st.dictionaries(NAME, st.lists(CAPTION, min_size=1, max_size=3), min_size=1, max_size=5)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_captions(form: str, captions: dict[str, str]) -> tuple[str, str]:
    """The name and text of a results file."""
    if form == "coco":
        return "a.json", json.dumps([{"image_id": i, "caption": c} for i, c in captions.items()])
    if form == "jsonl":
        return "a.jsonl", jsonl([{"image": i, "caption": c} for i, c in captions.items()])
    return "a.tsv", "".join(f"{i}\t{c}\n" for i, c in captions.items())


def write_references(form: str, references: dict[str, list[str]]) -> tuple[str, str]:
    """The name and text of a reference file."""
    numbers = {image: number for number, image in enumerate(references)}
    flat = [(image, text) for image, texts in references.items() for text in texts]
    if form == "coco":
        images = [{"id": numbers[image], "file_name": image} for image in references]
        annotations = [{"image_id": numbers[image], "caption": text} for image, text in flat]
        return "r.json", json.dumps({"images": images, "annotations": annotations})
    if form == "coco without images":
        return "r.json", json.dumps({"annotations": [{"image_id": image, "caption": text} for image, text in flat]})
    if form == "karpathy":
        images = [
            {"filename": image, "split": "test", "sentences": [{"raw": text} for text in texts]}
            for image, texts in references.items()
        ]
        return "r.json", json.dumps({"images": images})
    if form == "jsonl":
        return "r.jsonl", jsonl([{"image": image, "captions": texts} for image, texts in references.items()])
    return "r.tsv", "".join(f"{image}\t{text}\n" for image, text in flat)


def save(folder: Path, file: tuple[str, str]) -> Path:
    path = folder / file[0]
    path.write_text(file[1], encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["coco", "jsonl", "tsv"])
@given(captions=CAPTIONS)
@QUICK
def test_captions_are_read_as_they_were_written(tmp_path: Path, form: str, captions: dict[str, str]) -> None:
    assert read_results(save(tmp_path, write_captions(form, captions))).captions == captions


@pytest.mark.parametrize("form", ["coco", "coco without images", "karpathy", "jsonl", "tsv"])
@given(references=REFERENCES)
@QUICK
def test_references_are_read_as_they_were_written(tmp_path: Path, form: str, references: dict[str, list[str]]) -> None:
    records = read_references([save(tmp_path, write_references(form, references))])
    assert {record.image_id: list(record.captions) for record in records} == references


@given(references=REFERENCES, data=st.data())
@QUICK
def test_captions_of_the_same_images_match_by_any_name(
    tmp_path: Path, references: dict[str, list[str]], data: st.DataObject
) -> None:
    """In any order, with or without a folder in front."""
    captions = {image: data.draw(CAPTION) for image in data.draw(st.permutations(list(references)))}
    named = {data.draw(st.sampled_from([image, f"some/folder/{image}"])): text for image, text in captions.items()}
    results = read_results(save(tmp_path, write_captions("coco", named)))
    matched = match(results, read_references([save(tmp_path, write_references("coco", references))]))
    assert matched.hypotheses == captions
    assert {image: list(texts) for image, texts in matched.references.items()} == references


KEYS = "id image_id image caption captions annotations images file_name filename split sentences raw cocoid".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
HOSTILE = (
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.lists(JSON, max_size=3).map(lambda rows: jsonl(rows).encode())
    | st.sampled_from(
        [b"[" * 100_000, b"9" * 10_000, b'[{"image_id": ' + b"9" * 10_000 + b"}]", b"\xff\xfe", b"\x00\t\x00"]
    )
    | TEXT.map(str.encode)
)


@pytest.mark.parametrize("suffix", ["", ".json", ".jsonl", ".tsv", ".txt", ".token"])
@given(content=HOSTILE)
@QUICK
def test_hostile_files_are_errors_or_captions(tmp_path: Path, suffix: str, content: bytes) -> None:
    """``DataError`` or ``UsageError``, and no other exception."""
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(DataError, UsageError):
        read_results(path)
    for aligned in (False, True):
        with contextlib.suppress(DataError, UsageError):
            read_references([path], aligned=aligned)
    with contextlib.suppress(DataError, UsageError):
        read = read_results(path)
        match(read, read_references([path], aligned=read.aligned), "skip")


@pytest.mark.parametrize("data_format", [name for name in READERS if name != "clips"])
@given(content=HOSTILE)
@QUICK
def test_hostile_data_sets_are_errors_or_records(tmp_path: Path, data_format: str, content: bytes) -> None:
    names = "dataset.json captions_val2014.json captions.tsv captions.token Flickr8k.token.txt captions.txt"
    for name in names.split():
        (tmp_path / name).write_bytes(content)
    for split in ("train", "dev", "test", "val"):
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_bytes(content)
        (tmp_path / f"{split}.txt").write_bytes(content)
    for root in (tmp_path, tmp_path / "dataset.json", tmp_path / "captions.tsv"):
        with contextlib.suppress(DataError):
            read_dataset(data_format, root)
