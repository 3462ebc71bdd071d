"""Features in Parquet, shard by shard, as ``captioner extract --engine`` writes them, read as a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captioner.data.records import Names, read_json
from captioner.errors import DataError, FeatureStoreError, UsageError
from captioner.features.spec import FeatureSpec, check_mirrored, read_spec
from captioner.optional import require

RUN = "run.json"
"""The file that says of what the shards of a folder are."""
SETTINGS: Mapping[str, type] = {"crops": int, "mirrored": bool, "precision": str}
"""What a run and a store record of how features were computed."""


@dataclass(frozen=True)
class FeatureRun:
    """What the ``run.json`` of features says."""

    shards: int
    spec: FeatureSpec
    weights_digest: str
    options: Mapping[str, Any]
    """``SETTINGS`` by name."""


def parse_run(record: Any, where: str) -> FeatureRun:
    """What ``run.json`` says; ``UsageError`` for another run than of features, ``DataError`` for a damaged file."""
    if not isinstance(record, dict) or record.get("work") != "extract":
        raise UsageError(f"{where}: no features of captioner extract --engine in this folder")
    try:
        settings = dict(record["settings"])
        spec, digest = read_spec(settings.pop("spec")), str(settings.pop("weights_digest"))
        options = {name: kind(settings[name]) for name, kind in SETTINGS.items()}
        return FeatureRun(len(range(record["shards"])), spec, digest, options)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}/{RUN}: damaged ({error})") from error


def read_shard(source: Any, where: str, dimension: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keys, which of the n rows have a feature (n,) bool, and the features (n, D) float16, of a path or pyarrow file.

    Raises ``DataError`` for a file that is damaged or not of features of ``dimension`` numbers.
    """
    table = _read_table(source, where, dimension, ["key", "features", "error"])
    features = table["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
    good = table["error"].is_null().to_numpy()
    keys = table["key"].to_pylist()
    if None in keys or len(keys) != len(features) or not np.isfinite(features[good]).all():
        raise DataError(f"{where}: damaged (a key or a feature is missing or not finite)")
    return keys, good, features


def _read_table(source: Any, where: str, dimension: int, names: Sequence[str]) -> Any:
    """Columns of a shard as pyarrow's table."""
    pyarrow, parquet = require("pyarrow", "scale"), require("pyarrow.parquet", "scale")
    text = pyarrow.string()
    columns = {"key": text, "features": pyarrow.list_(pyarrow.float16(), dimension), "error": text}
    try:
        file = parquet.ParquetFile(source)
        if any(file.schema_arrow.field(name).type != kind for name, kind in columns.items()):
            raise DataError(f"{where}: its columns are not keys and features of {dimension} numbers")
        return file.read(list(names))
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{where}: damaged or not a file of features ({error})") from error


class ShardStore:
    """Reads the folder of a finished run (a ``captioner.features.spec.Store``); keys are in memory, features are not.

    Raises ``FeatureStoreError`` for a run that is not finished, and for features of the other kind (``mirrored``).
    """

    dtype = "float16"

    def __init__(self, path: str | Path, *, mirrored: bool | None = False) -> None:
        self.path = Path(path)
        self._run = parse_run(read_json(self.path / RUN), str(path))
        check_mirrored(str(path), self._run.options["mirrored"], mirrored)

    def __len__(self) -> int:
        return len(self._index[0])

    @property
    def spec(self) -> FeatureSpec:
        """What the features are."""
        return self._run.spec

    @property
    def weights_digest(self) -> str:
        """Digest of the weights that made the features."""
        return self._run.weights_digest

    @cached_property
    def ids(self) -> list[str]:
        """Keys of all images that have a feature."""
        return list(self._index[0])

    @property
    def unfinished(self) -> list[str]:
        """Keys of images without a feature, which could not be read."""
        return self._index[1]

    def summary(self) -> dict[str, Any]:
        """What the store is, by name, ready for JSON."""
        return {"rows": len(self) + len(self.unfinished), "finished": len(self), "feature": self.spec.key}

    def places(self, ids: Sequence[str]) -> np.ndarray:
        """Shard and row in it of each of ``ids``, (N, 2) int64; the error names up to three that are missing."""
        found = [self._index[0].get(self._names.find(name) or "") for name in ids]
        missing = [name for name, place in zip(ids, found, strict=True) if place is None]
        if missing:
            raise FeatureStoreError(f"{self.path}: no features of {', '.join(missing[:3])} ({len(missing)} in all)")
        return np.array(found, np.int64).reshape(-1, 2)

    def get(self, ids: Sequence[str]) -> np.ndarray:
        """Features of ``ids`` in that order, (N, D) float32; each shard is read once."""
        places = self.places(ids)
        values = np.empty((len(places), self.spec.dimension), np.float32)
        for shard in np.unique(places[:, 0]):
            here = places[:, 0] == shard
            values[here] = self.read(int(shard))[places[here, 1]]
        return values

    def read(self, shard: int) -> np.ndarray:
        """The features of a shard, (n, D) float16."""
        path = self._path(shard)
        return read_shard(path, str(path), self.spec.dimension)[2]

    def _path(self, shard: int) -> Path:
        path = self.path / f"{shard:05d}.parquet"
        if not path.with_suffix(".json").exists():
            raise FeatureStoreError(f"{self.path}: shard {shard:05d} is not done; finish the run first")
        return path

    @cached_property
    def _names(self) -> Names:
        return Names(self._index[0])

    @cached_property
    def _index(self) -> tuple[dict[str, tuple[int, int]], list[str]]:
        """Key to (shard, row), the first where a key repeats; and the keys without a feature."""
        rows: dict[str, tuple[int, int]] = {}
        unfinished: list[str] = []
        for shard in range(self._run.shards):
            path = self._path(shard)
            table = _read_table(path, str(path), self.spec.dimension, ["key", "error"])
            for row, (key, error) in enumerate(zip(*(one.to_pylist() for one in table.columns), strict=True)):
                if error is None:
                    rows.setdefault(key, (shard, row))
                else:
                    unfinished.append(key)
        return rows, unfinished
