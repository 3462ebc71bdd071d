from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from captioner.errors import CaptionerError, FeatureStoreError
from captioner.features.label_predictions import open_store
from captioner.features.shards import ShardStore
from captioner.features.store import FeatureStore
from captioner.scale import features
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
