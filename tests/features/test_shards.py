from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from captioner.errors import CaptionerError, DataError, FeatureStoreError
from captioner.features.label_predictions import open_store
from captioner.features.shards import ShardStore, TarStore
from captioner.features.store import FeatureStore
from captioner.scale import features
from tests.scale.toy import write_tar
from tests.toy import make_data


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """36 features in a store, and in six shards in ``shards``."""
    monkeypatch.setattr(features, "SHARD_SIZE", 7)
    data = make_data(tmp_path)
    features.export_features(data / "features.h5", str(data / "shards"))
    return data


def test_shards_are_read_as_the_store_that_they_are_of(data: Path) -> None:
    """Would catch features under another's key, and a folder of shards that passes for a store in parts."""
    found, wanted = open_store(data / "shards"), FeatureStore(data / "features.h5")
    assert isinstance(found, ShardStore) and (found.spec, found.ids) == (wanted.spec, wanted.ids)
    assert (found.weights_digest, found.dtype) == (wanted.weights_digest, wanted.dtype) and found.unfinished == []
    some = [wanted.ids[i] for i in (30, 2, 3, 2)]
    np.testing.assert_array_equal(found.get(some), wanted.get(some))
    assert found.places(some).tolist() == [[4, 2], [0, 2], [0, 3], [0, 2]]
    with pytest.raises(FeatureStoreError, match=r"no features of x, y"):
        found.get(["x", some[0], "y"])
    with pytest.raises(FeatureStoreError, match="mirrored images"):
        open_store(data / "shards", mirrored=True)


@pytest.mark.parametrize("damage", ["unfinished", "cut off", "other run", "no JSON", "other numbers"])
def test_what_is_not_whole_is_refused(data: Path, damage: str) -> None:
    """Would catch images that are silently missing from training, and a traceback."""
    run, shard = data / "shards" / "run.json", data / "shards" / "00003.parquet"
    record = json.loads(run.read_text())
    if damage == "unfinished":
        shard.with_suffix(".json").unlink()
    elif damage == "cut off":
        shard.write_bytes(shard.read_bytes()[:-100])
    elif damage == "other run":
        run.write_text(json.dumps(record | {"work": "caption"}))
    elif damage == "no JSON":
        run.write_bytes(b"\xff")
    else:
        record["settings"]["spec"]["dimension"] = 8
        run.write_text(json.dumps(record))
    with pytest.raises(CaptionerError, match="shards"):
        store = open_store(data / "shards")
        store.get(store.ids)


def as_npy(vector: object) -> bytes:
    """A file of numpy."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(vector))
    return stream.getvalue()


def write_tars(folder: Path, features: Mapping[str, np.ndarray], size: int = 7) -> Path:
    """Features and their captions in tars of ``size`` samples."""
    names = sorted(features)
    for first in range(0, len(names), size):
        members: dict[str, bytes] = {}
        for name in names[first : first + size]:
            members |= {f"{name}.txt": b"a caption", f"{name}.npy": as_npy(features[name])}
        write_tar(folder / f"{first // size:03}.tar", members)
    return folder


@pytest.mark.parametrize("cut", [".png", ""])
def test_tars_are_read_as_the_store_that_they_are_of(data: Path, cut: str) -> None:
    """Would catch features under another's key, and captions and images beside them taken for features."""
    wanted = FeatureStore(data / "features.h5")
    features = {name.removesuffix(cut): wanted.get([name])[0].astype(np.float16) for name in wanted.ids}
    found = open_store(write_tars(data / "tars", features))
    assert isinstance(found, TarStore) and (found.spec.key, found.spec.shape) == ("webdataset", (9,))
    assert (found.dtype, found.ids, found.unfinished) == ("float16", sorted(features), [])
    some = [wanted.ids[i] for i in (30, 2, 3, 2)]
    np.testing.assert_array_equal(found.get(some), wanted.get(some))
    assert found.places(some).tolist() == [[4, 2], [0, 2], [0, 3], [0, 2]]
    with pytest.raises(FeatureStoreError, match=r"no features of x\.png, y"):
        found.get(["x.png", some[0], "y"])


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (b"no array", "not an array of numpy"),
        (as_npy(np.ones(9, np.float32))[:-1], "not an array of numpy"),
        (as_npy([{}] * 9), "not an array of numpy"),
        (as_npy(np.ones((1, 9), np.float16)), r"not a vector .* \(1, 9\)"),
        (as_npy(np.ones(9)), "not a vector .* float64"),
        (as_npy(np.full(9, np.nan, np.float16)), "not finite"),
        (as_npy(np.ones(8, np.float16)), "has 8 numbers in float16, the first one of the folder 9"),
        (as_npy(np.ones(9, np.float32)), "has 9 numbers in float32"),
        (b"", "the file is empty"),
    ],
)
def test_a_member_that_is_no_feature_is_one_error(tmp_path: Path, vector: bytes, reason: str) -> None:
    """Would catch a pickle that is run, and features of two networks in one folder."""
    write_tar(tmp_path / "0.tar", {"a.npy": as_npy(np.ones(9, np.float16)), "b.npy": vector})
    with pytest.raises(DataError, match=rf"0\.tar: b\.npy.* {reason}"):
        open_store(tmp_path).get(["a"])


def test_an_object_store(data: Path) -> None:
    """Would catch shards that are read from this disk only; memory:// is a store of fsspec's."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    wanted = FeatureStore(data / "features.h5")
    write_tars(data / "tars", dict(zip(wanted.ids, wanted.get(wanted.ids), strict=True)))
    for kind in ("shards", "tars"):
        memory.put(f"{data}/{kind}/", f"/features/{kind}", recursive=True)
        found = open_store(f"memory://features/{kind}/")
        assert list(found.ids) == wanted.ids
        np.testing.assert_array_equal(found.get(wanted.ids[::-1]), wanted.get(wanted.ids[::-1]))
    with pytest.raises(FeatureStoreError, match="memory://nothing/here"):
        open_store("memory://nothing/here")
