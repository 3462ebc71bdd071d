"""Data sets, clips, results, unfinished ones too, and references."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.cli.resume import PartialResults, check_results_output
from captioner.data import READERS, read_dataset
from captioner.data.clips import CLIP_READERS, NODES, read_clips
from captioner.data.labeled import read_labeled
from captioner.data.records import Captioned, Images
from captioner.data.results import MISSING, Results, match, read_references, read_results
from captioner.predictors.base import Caption, Result
from tests.fuzz import KEYS, VALUES, attempt, damaged, damaged_file, fuzz
from tests.labeled import cifar10_batch, draw_images, idx

pytest.importorskip("pycocotools")

Files = dict[str, bytes]


def packed(value: Any) -> bytes:
    return json.dumps(value).encode()


def lines(*rows: Any) -> bytes:
    return b"".join((row.encode() if isinstance(row, str) else packed(row)) + b"\n" for row in rows)


TOKENS = lines(*(f"{name}.jpg#{n}\tA {name} , number {n} ." for name in "abc" for n in range(2)))
KARPATHY = [
    {"filename": f"{name}.jpg", "filepath": "val2014", "cocoid": n, "split": split, "sentences": [{"raw": "A dog."}]}
    for n, (name, split) in enumerate(zip("abc", ("train", "val", "test"), strict=True))
]
COCO = {
    "images": [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate("abc")],
    "annotations": [{"id": n, "image_id": n // 2, "caption": "A dog."} for n in range(6)],
}
OWN = [{"image": f"{name}.jpg", "captions": ["A dog.", f"A {name}."], "split": "train"} for name in "abc"]
TSV = lines(*(f"{name}.jpg\tA {name}.\ttest" for name in "abc"))
CLIPS = lines(
    {"format": "captioner-clips", "version": 1, "nodes": NODES},
    *(
        {"clip_id": f"v_{n}", "video": "v", "start": n, "end": n + 1.5, "sentences": ["He cuts."], "split": "train",
         "level": "detailed", "labels": ["cut", "-", "-", "-", "-"]}
        for n in range(2)
    ),
)  # fmt: skip
VIDEO = {"timestamps": [[0, 25], [25, 50]], "sentences": ["He cuts.", "He eats."], "fps": 25, "num_frames": 99}
RATES = packed({"s1.avi": 25, "s2": 29.4})
LISTS: Files = {
    f"Flickr_8k.{split}Images.txt": f"{n}.jpg\n".encode()
    for split, n in zip(("train", "dev", "test"), "abc", strict=True)
}
DATA_SETS: dict[str, list[Files]] = {
    "flickr8k": [{"Flickr8k.token.txt": TOKENS, **LISTS}],
    "flickr8k-kaggle": [{"captions.txt": b'image,caption\na.jpg,A dog .\nb.jpg,"A dog , a ""cat"" ."\n'}],
    "flickr30k": [{"captions.token": TOKENS, "train.txt": b"a.jpg\n", "val.txt": b"b\n", "test.txt": b"c.jpg\n"}],
    "karpathy": [{"dataset.json": packed({"images": KARPATHY})}],
    "coco": [{"captions_val2014.json": packed(COCO), "captions_train2014.json": packed(COCO)}],
    "own": [{"captions.jsonl": lines(*OWN)}, {"captions.tsv": TSV}],
    "clips": [{"clips.jsonl": CLIPS}],
    "tacos": [{"video_info.json": RATES, "a_train.txt": b"s1.avi_1_25:He cuts.#He eats.\ns2.avi_25_50:Salt.\n"}],
    "tacos-json": [{"train.json": packed({"v": VIDEO}), "val.json": packed({"w": VIDEO})}],
    "tacos-multilevel": [
        {"video_info.json": RATES, f"train.{suffix}": text.replace(" ", separator).replace("_", " ").encode()}
        for suffix, separator in (("tsv", "\t"), ("csv", ","))
        for text in ["video start end level sentence\ns1 1 25 short He_cuts.\ns2 25 50 single Salt.\n"]
    ],
}  # fmt: skip
RESULTS: Files = {
    "a.json": packed([{"image_id": n, "caption": f"a dog {n}"} for n in range(3)]),
    "a.jsonl": lines(*({"image": f"{name}.jpg", "caption": "a dog", "log_prob": -1.5} for name in "abc")),
    "a.tsv": lines(*(f"{name}.jpg\ta dog" for name in "abc")),
    "a.txt": lines("a dog", "a cat", "a cow"),
    "a": packed([{"image_id": f"x/{name}.jpg", "caption": None} for name in "abc"]),
}
REFERENCES: Files = {
    "coco_val2014.json": packed(COCO),
    "karpathy.json": packed({"images": KARPATHY}),
    "refs.jsonl": lines(*OWN),
    "refs.tsv": TSV,
    "refs.txt": lines("A dog.\tDogs.", "A cat.\tCats.", "A cow.\tCows."),
}


def save(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def usable(texts: list[str]) -> None:
    """Texts that can be printed and written."""
    for text in texts:
        text.encode()


def read(data_format: str, root: Path) -> None:
    """Read a data set by its name, and check what every record holds."""
    for clip in attempt(read_clips, data_format, root) or [] if data_format in CLIP_READERS else []:
        assert 0 <= clip.start <= clip.end < float("inf")
        usable([clip.clip_id, clip.video, clip.split, clip.level, *clip.sentences])
    records = attempt(read_dataset, data_format, root) or [] if data_format in READERS else []
    check(records)


def check(records: list[Captioned]) -> None:
    assert len({record.image_id for record in records}) == len(records)
    for record in records:
        usable([record.image_id, record.split, *record.captions])
        assert record.path is None or record.path.is_file()


@pytest.mark.parametrize("data_format", [*DATA_SETS])
@given(data=st.data())
@fuzz
def test_damaged_data_sets(tmp_path: Path, data_format: str, data: st.DataObject) -> None:
    """Would catch a parser's own exception, a second record of one id, times that are no numbers."""
    (tmp_path / "images").mkdir(exist_ok=True)
    for name in "abc":
        (tmp_path / "images" / f"{name}.jpg").touch()
    files = data.draw(st.sampled_from(DATA_SETS[data_format]))
    hurt = data.draw(st.sampled_from(sorted(files)))
    save(tmp_path, files | {hurt: data.draw(damaged_file(hurt, files[hurt]))})
    read(data_format, tmp_path)
    read(data_format, tmp_path / hurt)
    for name in files:
        (tmp_path / name).unlink()


CIFAR10 = [("test", ""), *(("data", f"_{number}") for number in range(1, 6))]
LABELED: dict[str, tuple[int, int, Files]] = {
    "cifar10": (32, 3, {f"{name}_batch{n}.bin": cifar10_batch(2) for name, n in CIFAR10}),
    "mnist": (28, 1, {
        "train-images-idx3-ubyte": idx(draw_images(2, 28, 1, 10)[0][..., 0]),
        "train-labels-idx1-ubyte": idx(np.arange(2)),
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx(draw_images(2, 28, 1, 10)[0][..., 0]), mtime=0),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(np.arange(2)), mtime=0),
    }),
}  # fmt: skip


@pytest.mark.parametrize("data_format", [*LABELED])
@given(data=st.data())
@fuzz
def test_damaged_labeled_images(tmp_path: Path, data_format: str, data: st.DataObject) -> None:
    """Would catch errors of gzip and numpy, arrays as large as a header says, and labels without a class."""
    side, channels, files = LABELED[data_format]
    assert read_labeled(data_format, _saved(tmp_path, files), side, channels)
    hurt = data.draw(st.sampled_from(sorted(files)))
    (tmp_path / hurt).write_bytes(data.draw(damaged(files[hurt])))
    classes, splits = attempt(read_labeled, data_format, tmp_path, side, channels) or ([], {})
    for images in splits.values():
        assert images.pixels.shape == (len(images.ids), side, side, channels)
        assert ((images.labels >= 0) & (images.labels < len(classes))).all()


def _saved(folder: Path, files: Files) -> Path:
    save(folder, files)
    return folder


@pytest.mark.parametrize("data_format", [*DATA_SETS])
def test_the_files_that_are_damaged_are_valid(tmp_path: Path, data_format: str) -> None:
    """Would catch a suite that damages what no reader accepts."""
    (tmp_path / "images").mkdir()
    for name in "abc":
        (tmp_path / "images" / f"{name}.jpg").touch()
    for index, files in enumerate(DATA_SETS[data_format]):
        if data_format == "coco":
            files = {"captions_val2014.json": files["captions_val2014.json"]}
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "images").symlink_to(tmp_path / "images")
        save(folder, files)
        assert read_clips(data_format, folder) if data_format in CLIP_READERS else read_dataset(data_format, folder)


def score(results: Results | None, references: list[Captioned] | None, missing: str) -> None:
    """Match what could be read; captions and references must be of the same images."""
    if results is None or references is None:
        return
    matched = attempt(match, results, references, missing)
    if matched is not None:
        assert list(matched.hypotheses) == list(matched.references)
        assert all(isinstance(text, str) for text in matched.hypotheses.values())
        usable([*matched.hypotheses.values(), *matched.notes])


@given(data=st.data())
@fuzz
def test_damaged_results_and_references(tmp_path: Path, data: st.DataObject) -> None:
    """Would catch a traceback on the way from two files to captions with their references."""
    name, reference = data.draw(st.sampled_from(sorted(RESULTS))), data.draw(st.sampled_from(sorted(REFERENCES)))
    both = {name: RESULTS[name], reference: REFERENCES[reference]}
    hurt = data.draw(st.sampled_from(sorted(both)))
    save(tmp_path, both | {hurt: data.draw(damaged_file(hurt, both[hurt]))})
    results = attempt(read_results, tmp_path / name)
    for aligned in (False, True):
        references = attempt(read_references, [tmp_path / reference], aligned=aligned)
        check(references or [])
        if results is not None and results.aligned == aligned:
            score(results, references, data.draw(st.sampled_from(MISSING)))
    attempt(read_results, tmp_path / reference)
    attempt(read_references, [tmp_path / name])


@pytest.mark.parametrize("suffix", ["", ".json", ".jsonl", ".tsv", ".txt"])
@given(content=VALUES | st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES)))
@fuzz
def test_random_structure(tmp_path: Path, suffix: str, content: Any) -> None:
    """Would catch values of a type that no reader expects, in places that no valid file has."""
    path = tmp_path / f"val{suffix}"
    path.write_bytes(
        b"\n".join(map(packed, content))
        if suffix == ".jsonl" and content and isinstance(content, list)
        else packed(content)
    )
    attempt(read_results, path)
    for data_format in ("", *READERS):
        check(attempt(read_references, [path], data_format) or [])
    for data_format in CLIP_READERS:
        read(data_format, path)


@given(name=st.text(max_size=20) | st.sampled_from(["é" * 300, "\ud800é", "é\0", "../é", "/é", "é/../..", "é//"]))
@fuzz
def test_any_name_of_an_image(tmp_path: Path, name: str) -> None:
    assert Images(tmp_path).find(name) is None


def resume(output: Path) -> list[Result]:
    """The results of images a.jpg to c.jpg by a model that says "new"; all are in the file that is kept."""
    check_results_output(output, [])
    images = [output.parent / f"{name}.jpg" for name in "abc"]
    with PartialResults(output, cast(Any, SimpleNamespace(digest="0" * 64)), {"beam_size": 3}) as partial:
        found = list(partial.resume(images, lambda ids: (Result(image, (Caption("new", -1.5),)) for image in ids)))
    assert [result.image for result in found] == images
    return found


@given(data=st.data())
@fuzz
def test_damaged_unfinished_results(tmp_path: Path, data: st.DataObject) -> None:
    """Would catch a traceback for a file that is kept from a killed run, and texts that cannot be written."""
    for name in "abc":
        (tmp_path / f"{name}.jpg").touch()
    partial = tmp_path / "results.json.partial"
    partial.unlink(missing_ok=True)
    resume(tmp_path / "results.json")
    header, *rows = partial.read_bytes().splitlines(keepends=True)
    if data.draw(st.booleans()):
        partial.write_bytes(header + data.draw(damaged_file("a.jsonl", b"".join(rows))))
    else:
        partial.write_bytes(data.draw(damaged(header + b"".join(rows))))
    found = attempt(resume, tmp_path / "results.json")
    if found is not None:
        usable([caption.text for result in found for caption in result.captions])
        assert attempt(resume, tmp_path / "results.json") == found
