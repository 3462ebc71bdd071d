"""Reading stores: rows in the order asked, files of other kinds refused, damage found."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from captioner.backbones.spec import BackboneSpec
from captioner.errors import DataError, FeatureStoreError
from captioner.features.label_predictions import open_store
from captioner.features.spec import FeatureSpec, Store
from captioner.features.store import FeatureStore
from captioner.features.writer import FeatureWriter
from tests.features.fakes import SPEC, fill, vector

STORED = Path(__file__).parents[1] / "fixtures" / "features-v2.h5"


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("float32", 0)])
def test_rows_come_back_in_the_order_asked(tmp_path: Path, dtype: str, tolerance: float) -> None:
    fill(tmp_path / "a.h5", range(20), dtype=dtype)
    store: Store = open_store(tmp_path / "a.h5")
    got = store.get(["7.jpg", "3.jpg", "7.jpg"])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [vector(7), vector(3), vector(7)], rtol=tolerance, atol=tolerance)
    assert (store.spec, store.weights_digest, store.dtype) == (SPEC, "w", dtype)
    assert (store.ids[4], len(store.ids), store.unfinished) == ("4.jpg", 20, [])
    assert store.get([]).shape == (0, 12)
    assert store.summary()["complete"] and FeatureStore(store.path).verify() == []
    with pytest.raises(FeatureStoreError, match=r"no features of x, y, z and 1 more$"):
        store.get(["x", "1.jpg", "y", "z", "w"])
    with pytest.raises(FeatureStoreError, match=r"no features of a/4.jpg; it has 4.jpg, as captioner extract"):
        store.get(["a/4.jpg"])


def test_items_of_several_frames(tmp_path: Path) -> None:
    """Any FeatureSpec can be stored; an item is then (T, D)."""
    spec = FeatureSpec("flow", 3, frames=4, names=("x", "y", "z"))
    items = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    for numbers in ([0, 1, 2], [3, 4]):  # the second run merges with the first one's file
        with FeatureWriter(tmp_path / "a.h5", spec, dtype="float32") as writer:
            for number in numbers:
                writer.add(str(number), items[number])
    store = FeatureStore(tmp_path / "a.h5")
    assert (type(store.spec), store.spec, store.weights_digest) == (FeatureSpec, spec, "")
    np.testing.assert_array_equal(store.get(["4", "0"]), items[[4, 0]])
    assert store.get([]).shape == (0, 4, 3) and store.verify() == []
    assert store.summary()["shape"] == [4, 3]
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["features"][2, 3, 1] = np.nan
    assert "1 rows hold values that are not finite, first 2" in FeatureStore(tmp_path / "a.h5").verify()[1]


def test_the_stored_file_of_this_version_is_read() -> None:
    """Would catch a change of the format without a new version number. Written by tests/fixtures/make_formats.py."""
    store = FeatureStore(STORED)
    assert store.spec == BackboneSpec("tiny", size=8, resize="squash", dimension=12)
    assert (store.ids, store.unfinished) == (["0.jpg", "1.jpg", "2.jpg"], ["broken.jpg"])
    assert (store.weights_digest, store.dtype) == ("w", "float16")
    np.testing.assert_array_equal(store.get(["2.jpg", "0.jpg"]), np.float16([vector(2), vector(0)]))
    assert store.verify() == ["1 rows are unfinished, first broken.jpg"]


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(FeatureStoreError, match="no such file"):
        FeatureStore(path).get(["x"])
    with pytest.raises(FeatureStoreError, match="no feature files in this folder"):
        FeatureStore(tmp_path).get(["x"])
    path.write_bytes(b"nonsense")
    with pytest.raises(FeatureStoreError, match="not a readable HDF5 file"):
        FeatureStore(path).get(["x"])
    with h5py.File(path, "w") as file:
        file["x"] = [1]
    with pytest.raises(FeatureStoreError, match="not a feature store"):
        FeatureStore(path).get(["x"])
    path.unlink()
    fill(path, range(2))
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 1
    with pytest.raises(FeatureStoreError, match="format version 1, this program reads version 2; extract"):
        FeatureStore(path).get(["x"])


def test_damage_is_found(tmp_path: Path) -> None:
    """Repeated ids, values that are not finite, and files stored in chunks by other programs, which stay readable."""
    fill(tmp_path / "a.h5", range(4))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        rows = file["features"][:]
        rows[2, 3] = np.inf
        del file["features"]
        file.create_dataset("features", data=rows, chunks=(1, 12), compression="gzip")
        file["ids"][1] = "0.jpg"
        del file.attrs["index_crc32"], file["checksums"]
    problems = FeatureStore(tmp_path / "a.h5").verify()
    assert len(problems) == 3 and "0.jpg is in" in problems[0] and "not finite, first 2.jpg" in problems[-1]
    assert "checksum mismatch" in problems[1]
    np.testing.assert_allclose(FeatureStore(tmp_path / "a.h5").get(["3.jpg"]), [vector(3)], atol=1e-3, rtol=1e-3)


def test_verify_finds_a_changed_number(tmp_path: Path) -> None:
    fill(tmp_path / "a.h5", range(2))
    assert FeatureStore(tmp_path / "a.h5").verify() == []
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["features"][1, 0] = 2
    assert "checksum mismatch" in FeatureStore(tmp_path / "a.h5").verify()[0]


@pytest.mark.parametrize("name", ["ids", "features", "finished", "spec", "shape"])
def test_damage_inside_a_file_is_one_error_of_ours(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "a.h5", range(2))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        if name == "spec":
            file.attrs["spec"] = "{"
        elif name == "shape":
            del file["features"]
            file["features"] = np.zeros((2, 5), np.float16)
        else:
            del file[name]
            file.create_group(name)
    with pytest.raises(FeatureStoreError, match="damaged"):
        FeatureStore(tmp_path / "a.h5").verify()


def _broken(path: Path, change: Callable[[h5py.File], object]) -> Path:
    fill(path, range(4))
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def _replace(name: str, data: Any = None, **options: Any) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data, **options)

    return change


def _link(file: h5py.File) -> None:
    del file["features"]
    file["features"] = h5py.ExternalLink("other.h5", "features")


LAYOUTS: dict[str, Callable[[h5py.File], object]] = {
    "texts": _replace("features", np.array([["x"] * 12] * 4, object), dtype=h5py.string_dtype()),
    "integers": _replace("features", np.zeros((4, 12), np.int16)),
    "wider": _replace("features", np.zeros((4, 12), np.float64)),
    "fewer rows": _replace("features", np.zeros((3, 12), np.float16)),
    "numbers as ids": _replace("ids", np.arange(4)),
    "texts as marks": _replace("finished", np.array(["x"] * 4, object), dtype=h5py.string_dtype()),
    "elsewhere": _replace("features", shape=(4, 12), dtype="float16", external=[("/dev/zero", 0, 96)]),
    "link": _link,
    "chunk": _replace("features", shape=(4, 12), dtype="float16", maxshape=(None, 12), chunks=(2**25, 12)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_of_another_layout_is_refused_before_a_row_is_read(tmp_path: Path, name: str) -> None:
    """Would catch a memory mapping of pointers (a crash), of another file, or of numbers of another type."""
    with pytest.raises(FeatureStoreError, match=r"a.h5: damaged \(.*delete it and extract again"):
        FeatureStore(_broken(tmp_path / "a.h5", LAYOUTS[name])).get(["1.jpg"])


def _set(name: str, value: object) -> Callable[[h5py.File], object]:
    return lambda file: file.attrs.__setitem__(name, value)


def _poison(file: h5py.File) -> None:
    """A file of an older release, which has no checksums, with a value that is not finite."""
    del file["checksums"]
    file["features"][1, 0] = np.nan


@pytest.mark.parametrize("change", [lambda file: file["features"].__setitem__((1, 0), 2), _poison])
def test_a_damaged_row_is_never_handed_out(tmp_path: Path, change: Callable[[h5py.File], object]) -> None:
    """Would catch a flipped byte that changes captions, and NaN that empties them; other rows are still read."""
    path = _broken(tmp_path / "a.h5", change)
    assert FeatureStore(path).get(["2.jpg"]).shape == (1, 12)
    with pytest.raises(FeatureStoreError, match=r"a.h5: the feature of 1.jpg is damaged or not finite; delete"):
        FeatureStore(path).get(["0.jpg", "1.jpg"])


@pytest.mark.parametrize(("name", "value"), [("ids", "9.jpg"), ("finished", False)])
def test_a_changed_index_is_found(tmp_path: Path, name: str, value: object) -> None:
    """Would catch a feature that is read under another image's id."""
    path = _broken(tmp_path / "a.h5", lambda file: file[name].__setitem__(1, value))
    with pytest.raises(FeatureStoreError, match="checksum of its ids does not match"):
        FeatureStore(path).get(["0.jpg"])


SPECS = {
    "deep": "[" * 20_000,
    "list": "[1]",
    "digits": '{"kind": "feature", "key": "a", "dimension": ' + "9" * 5000 + "}",
    "huge": '{"kind": "feature", "key": "a", "dimension": 1000000000000}',
    "infinite": '{"kind": "feature", "key": "a", "dimension": Infinity}',
    "float": '{"kind": "feature", "key": "a", "dimension": 12.0}',
    "names": '{"kind": "feature", "key": "a", "dimension": 1, "names": [[1]]}',
    "narrow": json.dumps({**SPEC.to_dict(), "dimension": 5}),
    "std": json.dumps({**SPEC.to_dict(), "std": float("nan")}),
    "side": json.dumps({**SPEC.to_dict(), "size": 10**9}),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_hostile_spec_is_one_error(tmp_path: Path, name: str) -> None:
    """Would catch a traceback from JSON of any depth, number or type, and a spec that its rows do not fit."""
    with pytest.raises(FeatureStoreError, match="a.h5: damaged") as caught:
        FeatureStore(_broken(tmp_path / "a.h5", _set("spec", SPECS[name]))).summary()
    assert len(str(caught.value)) < 400


def _declare(file: h5py.File) -> None:
    for name, dtype in (("ids", h5py.string_dtype()), ("finished", bool), ("features", "float16")):
        del file[name]
        width = (12,) if name == "features" else ()
        file.create_dataset(name, (10**9, *width), dtype, chunks=(1024, *width))
    del file["checksums"]


@pytest.mark.parametrize(
    "change", [_declare, _set("part", "1/999999999"), _set("part", "3/2"), _set("crops", np.arange(3)), _set("part", 7)]
)
def test_counts_of_a_file_are_bounded(tmp_path: Path, change: Callable[[h5py.File], object]) -> None:
    """Would catch a small file that keeps the program busy for minutes, and attributes of other types."""
    with pytest.raises(FeatureStoreError, match="a.h5: damaged"):
        FeatureStore(_broken(tmp_path / "a.h5", change)).verify()


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """Would catch a program that waits for ever for somebody to write into a FIFO."""
    os.mkfifo(tmp_path / "a.h5")
    for path in (tmp_path / "a.h5", tmp_path):
        with pytest.raises(FeatureStoreError, match=r"a.h5: not a regular file; give one"):
            FeatureStore(path).summary()


class Rows(Dataset[tuple[int, torch.Tensor]]):
    """Row i of a store, as a training loop would read it."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        return index, torch.from_numpy(self.store.get([f"{index}.jpg"])[0])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_right_rows(tmp_path: Path, start: str) -> None:
    """Would catch HDF5 handles shared between processes, which return other rows or hang."""
    fill(tmp_path / "a.h5", range(40), dtype="float32")
    store = FeatureStore(tmp_path / "a.h5")
    store.get(["0.jpg"])  # open it in this process first
    loader = DataLoader(Rows(store), batch_size=4, num_workers=2, multiprocessing_context=start)
    seen = {int(i): row.numpy() for numbers, rows in loader for i, row in zip(numbers, rows, strict=True)}
    assert len(seen) == 40
    for number, row in seen.items():
        np.testing.assert_array_equal(row, vector(number))
    assert len(pickle.dumps(store)) < 500


def test_mirrored_stores_are_told_apart(tmp_path: Path) -> None:
    """Would catch mirrored features where captions or training want those of the images as they are, or the reverse."""
    fill(tmp_path / "a.h5", range(3))
    fill(tmp_path / "b.h5", range(3), mirrored=True)
    assert FeatureStore(tmp_path / "b.h5", mirrored=None).summary()["mirrored"] is True
    assert len(pickle.loads(pickle.dumps(FeatureStore(tmp_path / "b.h5", mirrored=True)))) == 3
    with pytest.raises(FeatureStoreError, match="b.h5: made of mirrored images .*, wanted: images as they are$"):
        FeatureStore(tmp_path / "b.h5").get(["2.jpg"])
    with pytest.raises(FeatureStoreError, match="a.h5: made of images as they are, wanted: mirrored images .*--mir"):
        FeatureStore(tmp_path / "a.h5", mirrored=True).get(["1.jpg"])


def test_accents_of_ids_may_be_encoded_in_two_ways(tmp_path: Path) -> None:
    """Would catch a caption list from Linux and a store of a Mac's files that do not find each other."""
    composed, apart = "caf\u00e9.jpg", "cafe\u0301.jpg"
    for name, ids in (("apart", [apart]), ("both", [composed, apart])):
        with FeatureWriter(tmp_path / f"{name}.h5", SPEC, "w", dtype="float32") as writer:
            for number, id in enumerate(ids):
                writer.add(id, vector(number))
    store = FeatureStore(tmp_path / "apart.h5")
    assert composed in store and "cafe.jpg" not in store
    np.testing.assert_array_equal(store.get([composed, apart]), [vector(0), vector(0)])
    np.testing.assert_array_equal(FeatureStore(tmp_path / "both.h5").get([apart, composed]), [vector(1), vector(0)])
    with FeatureWriter(tmp_path / "three.h5", SPEC, "w") as writer:
        for id in ("\u1e69.jpg", "s\u0323\u0307.jpg"):
            writer.add(id, vector(0))
    with pytest.raises(DataError, match="may be 2 names that encode accents differently"):
        FeatureStore(tmp_path / "three.h5").get(["s\u0307\u0323.jpg"])
