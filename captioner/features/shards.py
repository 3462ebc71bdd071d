"""Read features in shards as a store: Parquet of ``captioner extract --engine``, and WebDataset tars."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captioner.data.records import Names, parse_json
from captioner.data.tars import TARS, read_tar
from captioner.errors import DataError, FeatureStoreError, UsageError
from captioner.features.spec import FeatureSpec, check_mirrored, read_spec
from captioner.optional import require
from captioner.places import Folder, is_address, open_source

RUN = "run.json"
"""The file that describes the shards of a folder."""
TAR_KEY = "webdataset"
"""Key of the features in tars, since the network that computed them is unknown."""
SETTINGS: Mapping[str, type] = {"crops": int, "mirrored": bool, "precision": str}
"""Settings of the computation of features that runs and stores record."""


@dataclass(frozen=True)
class FeatureRun:
    """The contents of the ``run.json`` of features."""

    shards: int
    spec: FeatureSpec
    weights_digest: str
    options: Mapping[str, Any]
    """Values of ``SETTINGS`` by name."""


def parse_run(record: Any, where: str) -> FeatureRun:
    """Parse ``run.json``; raises ``UsageError`` for a run that is not of features, ``DataError`` for a damaged file."""
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
    """Keys, (n,) bool: which rows have a feature, and the features (n, D) float16, from a path or pyarrow file.

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


class ShardedStore(ABC):
    """Features in the files of a folder (a ``captioner.features.spec.Store``); only keys are kept in memory."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._folder = Folder(str(path).rstrip("/"))

    def __len__(self) -> int:
        return len(self._index[0])

    @property
    @abstractmethod
    def spec(self) -> FeatureSpec:
        """The specification of the features."""

    @property
    @abstractmethod
    def weights_digest(self) -> str:
        """Digest of the weights that computed the features; empty if unknown."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """Type of the stored features: float16 or float32."""

    @property
    @abstractmethod
    def _files(self) -> Sequence[str]:
        """Names of the shards' files, in order."""

    @abstractmethod
    def _keys(self, shard: int) -> tuple[list[str], Sequence[bool]]:
        """Keys of a shard's rows, and which of them have a feature."""

    @abstractmethod
    def read(self, shard: int) -> np.ndarray:
        """The features of a shard, (n, D) of ``dtype``."""

    @cached_property
    def ids(self) -> list[str]:
        """Keys of all images with a feature."""
        return list(self._index[0])

    @property
    def unfinished(self) -> list[str]:
        """Keys of images without a feature, because they could not be read."""
        return self._index[1]

    def summary(self) -> dict[str, Any]:
        """A description of the store, by name, as JSON values."""
        return {"rows": len(self) + len(self.unfinished), "finished": len(self), "feature": self.spec.key}

    def places(self, ids: Sequence[str]) -> np.ndarray:
        """(Shard, row) of each of ``ids``, (N, 2) int64; the error names up to three missing ones."""
        found = [self._index[0].get(self._find(name) or "") for name in ids]
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

    def _find(self, name: str) -> str | None:
        """The key of an image."""
        return self._names.find(name)

    def _place(self, shard: int) -> str:
        return f"{self._folder.name}/{self._files[shard]}"

    @cached_property
    def _names(self) -> Names:
        return Names(self._index[0])

    @cached_property
    def _index(self) -> tuple[dict[str, tuple[int, int]], list[str]]:
        """Key to (shard, row), the first one for a repeated key; and the keys without a feature."""
        rows: dict[str, tuple[int, int]] = {}
        unfinished: list[str] = []
        for shard in range(len(self._files)):
            for row, (key, good) in enumerate(zip(*self._keys(shard), strict=True)):
                if good:
                    rows.setdefault(key, (shard, row))
                else:
                    unfinished.append(key)
        return rows, unfinished


class ShardStore(ShardedStore):
    """The Parquet files of a finished run of ``captioner extract --engine``.

    Raises ``FeatureStoreError`` for a run that is not finished, and for features of the other kind (``mirrored``).
    """

    dtype = "float16"

    def __init__(self, path: str | Path, *, mirrored: bool | None = False) -> None:
        super().__init__(path)
        self._run = parse_run(parse_json(_text(self._folder, RUN), f"{path}/{RUN}"), str(path))
        check_mirrored(str(path), self._run.options["mirrored"], mirrored)

    @property
    def spec(self) -> FeatureSpec:
        return self._run.spec

    @property
    def weights_digest(self) -> str:
        return self._run.weights_digest

    @cached_property
    def _files(self) -> Sequence[str]:
        names = self._folder.names()
        numbers = [f"{number:05d}" for number in range(self._run.shards)]
        missing = next((number for number in numbers if f"{number}.json" not in names), None)
        if missing is not None:
            raise FeatureStoreError(f"{self.path}: shard {missing} is not done; finish the run first")
        return [f"{number}.parquet" for number in numbers]

    def _keys(self, shard: int) -> tuple[list[str], Sequence[bool]]:
        with open_source(self._place(shard)) as stream:
            table = _read_table(stream, self._place(shard), self.spec.dimension, ["key", "error"])
        return table["key"].to_pylist(), table["error"].is_null().to_pylist()

    def read(self, shard: int) -> np.ndarray:
        with open_source(self._place(shard)) as stream:
            return read_shard(stream, self._place(shard), self.spec.dimension)[2]


class TarStore(ShardedStore):
    """The WebDataset tars of a folder, with a vector of numpy in each member ``KEY.npy``.

    The key of an image is the member's name without ``.npy``: that of the image, with or without its suffix. A tar does
    not say which network computed the features, or whether the images were mirrored. Raises ``DataError`` for a damaged
    tar, and for a vector whose shape or type differs from the first one's.
    """

    weights_digest = ""

    @cached_property
    def spec(self) -> FeatureSpec:
        return FeatureSpec(TAR_KEY, len(self._first))

    @cached_property
    def dtype(self) -> str:
        return str(self._first.dtype)

    @cached_property
    def _files(self) -> Sequence[str]:
        return sorted(name for name in self._folder.names() if name.endswith(TARS))

    @cached_property
    def _first(self) -> np.ndarray:
        """The first vector, (D,)."""
        vectors = (vector for shard in range(len(self._files)) for _, vector in self._vectors(shard))
        found = next(vectors, None)
        if found is None:
            raise FeatureStoreError(f"{self.path}: no tars with features, KEY.npy, in this folder")
        return found

    def _keys(self, shard: int) -> tuple[list[str], Sequence[bool]]:
        keys = [key for key, _ in self._checked(shard)]
        return keys, [True] * len(keys)

    def read(self, shard: int) -> np.ndarray:
        return np.stack([vector for _, vector in self._checked(shard)])

    def _checked(self, shard: int) -> Iterator[tuple[str, np.ndarray]]:
        """Keys and vectors, all of the same shape and type as the first one."""
        for key, vector in self._vectors(shard):
            if (vector.shape, vector.dtype) != (self._first.shape, self._first.dtype):
                raise DataError(
                    f"{self._place(shard)}: {key}.npy has {len(vector)} numbers in {vector.dtype}, the first one of "
                    f"the folder {len(self._first)} in {self.dtype}"
                )
            yield key, vector

    def _vectors(self, shard: int) -> Iterator[tuple[str, np.ndarray]]:
        """Keys and vectors (D,) float16 or float32."""
        for name, data, error in read_tar(self._place(shard), (".npy",)):
            if error:
                raise DataError(f"{self._place(shard)}: {name}: {error}")
            yield os.path.splitext(name)[0], _read_vector(data, f"{self._place(shard)}: {name}")

    def _find(self, name: str) -> str | None:
        return super()._find(name) or super()._find(os.path.splitext(name)[0])


def open_shards(path: str | Path, mirrored: bool | None) -> ShardedStore | None:
    """The store in a folder of shards, on disk or in an object store; None for any other path.

    Raises ``FeatureStoreError`` for an address without shards.
    """
    if not is_address(str(path)) and not os.path.isdir(path):
        return None
    names = Folder(str(path).rstrip("/")).names()
    if RUN in names:
        return ShardStore(path, mirrored=mirrored)
    if any(name.endswith(TARS) for name in names):
        return TarStore(path)
    if is_address(str(path)):
        raise FeatureStoreError(f"{path}: neither {RUN} of captioner extract --engine nor tars are here")
    return None


def _text(folder: Folder, name: str) -> str:
    try:
        return folder.read(name).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{folder.name}/{name}: cannot be read ({error})") from error


def _read_vector(data: bytes, where: str) -> np.ndarray:
    """The vector (D,) in a numpy file; raises ``DataError`` for any other content."""
    try:
        vector: np.ndarray = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy raises many kinds of errors for headers
        raise DataError(f"{where}: damaged or not an array of numpy ({error})") from error
    if vector.ndim != 1 or not vector.size or vector.dtype not in (np.float16, np.float32):
        raise DataError(f"{where}: not a vector in float16 or float32 but {vector.dtype} {vector.shape}")
    if not np.isfinite(vector).all():
        raise DataError(f"{where}: some numbers are not finite")
    return vector
