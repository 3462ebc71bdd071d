"""Features that are read shard by shard are those that are in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pyarrow")

from captioner.errors import ConfigError
from captioner.features.store import FeatureStore
from captioner.scale import features
from captioner.tasks.sentences.data import SentenceData, load_captions
from tests.features.test_shards import write_tars
from tests.toy import experiment, make_data


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features and those of mirrored images in stores, in Parquet (``.shards``) and in tars (``.tars``)."""
    monkeypatch.setattr(features, "SHARD_SIZE", 7)
    data = make_data(tmp_path)
    for name in ("features", "mirrored"):
        features.export_features(data / f"{name}.h5", str(data / f"{name}.shards"))
        store = FeatureStore(data / f"{name}.h5", mirrored=None)
        write_tars(data / f"{name}.tars", dict(zip(store.ids, store.get(store.ids), strict=True)))
    return data


def load(data: Path, kind: str, buffer: int, **settings: Any) -> SentenceData:
    """Training data of two stores side by side, with mirrored ones."""
    plain, mirrored = ([str(data / f"{name}.{kind}")] * 2 for name in ("features", "mirrored"))
    chosen = {"data__features": plain, "data__features_mirrored": mirrored, "data__shuffle_buffer": buffer}
    return load_captions(experiment(data, data / "run", **(chosen | settings)))


@pytest.mark.parametrize("kind", ["shards", "tars"])
def test_streamed_features_are_those_in_memory(data: Path, kind: str) -> None:
    """Would catch another image's features, those of the other side, and dev images that are mirrored."""
    streamed, whole = load(data, kind, 12), load(data, "h5", 0)
    assert sum(spec.dimension for spec in streamed.inputs) == 18
    batches = list(streamed.batches(1))
    rows, flips = [batch.rows for batch in batches], [streamed._flips(1, n, len(b)) for n, b in enumerate(batches)]
    assert any(one.any() for one in flips) and not all(one.all() for one in flips)
    for batch, wanted in zip(batches, whole.images.stream(rows, flips), strict=True):
        assert torch.equal(batch.images["input"], wanted["input"])
    for found, wanted in zip(
        streamed.images.stream([streamed.dev_rows]), whole.images.stream([whole.dev_rows]), strict=True
    ):
        assert torch.equal(found["input"], wanted["input"])


def test_teachers_read_their_own_shards(data: Path) -> None:
    """Would catch teachers that get the model's features."""
    teacher = {"loss__teachers": ["teacher"], "loss__teacher_features": [str(data / "mirrored.tars")]}
    streamed = load(data, "shards", 12, data__features_mirrored=[], **teacher)
    assert streamed.teacher_size == 9
    for batch in streamed.batches(0):
        assert torch.equal(batch.images["teacher"], -batch.images["input"][:, :9])


def test_other_shards_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch rows that are taken from the shards of another run, which are cut in another way."""
    monkeypatch.setattr(features, "SHARD_SIZE", 5)
    features.export_features(data / "mirrored.h5", str(data / "other"))
    with pytest.raises(ConfigError, match="other images in its shards"):
        load(data, "shards", 12, data__features_mirrored=[str(data / "other")] * 2)
    with pytest.raises(ConfigError, match=r"features\.h5: data\.shuffle_buffer reads folders"):
        load(data, "h5", 12)
