"""The format of a feature file, and reading and writing one such file.

    /            attributes: format, version, feature (the spec's key), spec (JSON), spec_digest, weights_digest, dtype,
                 crops, mirrored, precision, part, provenance (JSON), crc32 (of the finished features' bytes)
    /ids         (N,) UTF-8 text
    /features    (N, D) or (N, T, D) float16 or float32, contiguous
    /finished    (N,) bool; False where an item has no feature, such as an image that cannot be read

While ``FILE`` is being written its rows are in ``FILE.parts/``, as files of the same format numbered from 1.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from captioner.errors import FeatureStoreError
from captioner.features.spec import FeatureSpec, read_spec
from captioner.files import atomic_path, check_readable

FORMAT = "captioner-features"
VERSION = 2
DTYPES = ("float16", "float32")
IDENTITY = ("feature", "spec_digest", "weights_digest", "dtype", "crops", "mirrored", "precision")
"""Attributes in which all files of a store, and all runs that write it, must agree."""
REQUIRED = (*IDENTITY, "spec", "part", "crc32")
READ_AT_ONCE = 4096
"""Rows in memory at a time while a whole file is read."""


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """One feature file, its header checked when the object is made.

    The file is opened for each read and never held open, so that forked and spawned processes share nothing. Raises
    ``FeatureStoreError`` for a missing or damaged file, another format and another version.
    """

    path: Path

    def __post_init__(self) -> None:
        self.attributes  # noqa: B018  # reads and checks the header

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The file's attributes as plain Python values."""
        with self._open() as file:
            attributes = {name: _plain(value) for name, value in file.attrs.items()}
            if attributes.get("format") != FORMAT:
                raise FeatureStoreError(f"{self.path}: an HDF5 file, but not of captioner's features")
            if attributes.get("version") != VERSION:
                raise FeatureStoreError(
                    f"{self.path}: format version {attributes.get('version')}, this program reads version {VERSION};"
                    " extract the features again"
                )
            missing = [name for name in REQUIRED if name not in attributes]
            missing += [name for name in ("ids", "features", "finished") if name not in file]
            if missing:
                raise FeatureStoreError(f"{self.path}: damaged, {missing[0]!r} is missing; extract the features again")
            shape = _shape(attributes)
            if file["features"].shape[1:] != shape:
                raise FeatureStoreError(
                    f"{self.path}: damaged, an item has shape {file['features'].shape[1:]} but its spec says {shape};"
                    " extract the features again"
                )
            return attributes

    @cached_property
    def spec(self) -> FeatureSpec:
        """What the features are."""
        return read_spec(json.loads(self.attributes["spec"]))

    @cached_property
    def ids(self) -> list[str]:
        """Ids of all rows, in the file's order."""
        with self._open() as file:
            return [name.decode() for name in file["ids"][:]]

    @cached_property
    def finished(self) -> np.ndarray:
        """(N,) bool: which rows have a feature."""
        with self._open() as file:
            return np.asarray(file["finished"][:], dtype=bool)

    @property
    def features(self) -> np.ndarray:
        """(N, D) or (N, T, D) as stored, a view of the file: only the rows that are used are read."""
        with self._open() as file:
            data = file["features"]
            offset = data.id.get_offset()
            if data.size and offset is None:  # stored in chunks by another program
                return np.asarray(data[:])
            if not data.size:
                return np.empty(data.shape, data.dtype)
            return np.memmap(self.path, data.dtype, "r", offset, data.shape)

    def problems(self) -> list[str]:
        """What is wrong with the rows, one line each; reads the whole file."""
        features = self.features
        if not len(self.ids) == len(self.finished) == len(features):
            return [f"{self.path}: {len(self.ids)} ids, {len(self.finished)} marks, {len(features)} rows"]
        found, infinite, crc = [], [], 0
        for start in range(0, len(features), READ_AT_ONCE):
            done = self.finished[start : start + READ_AT_ONCE]
            rows = features[start : start + READ_AT_ONCE]
            finite = np.isfinite(rows).reshape(len(rows), -1).all(1)  # (rows,)
            infinite += [self.ids[start + int(row)] for row in np.flatnonzero(~finite & done)]
            crc = zlib.crc32(np.ascontiguousarray(rows[done]).data, crc)
        if self.attributes["crc32"] != crc:
            found.append(f"{self.path}: checksum mismatch, the features were changed; delete it, extract again")
        if infinite:
            found.append(f"{self.path}: {len(infinite)} rows hold values that are not finite, first {infinite[0]}")
        return found

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            file = h5py.File(self.path, "r", locking=False)
        except FileNotFoundError:
            raise FeatureStoreError(f"{self.path}: no such file; make features with captioner extract") from None
        except OSError as error:
            check_readable(self.path, FeatureStoreError)
            raise FeatureStoreError(f"{self.path}: not a readable HDF5 file ({error}); extract again") from None
        try:
            with file:
                yield file
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:  # of h5py
            raise FeatureStoreError(f"{self.path}: damaged ({error}); delete it and extract again") from None


def write_file(
    path: Path, spec: FeatureSpec, attributes: Mapping[str, Any], ids: Sequence[str], blocks: Iterable[np.ndarray]
) -> None:
    """Write one file, atomically. ``blocks`` (each (n, D) or (n, T, D)) are the first ids' rows; others have none."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, **attributes})
        file.create_dataset("ids", data=list(ids), shape=(len(ids),), dtype=h5py.string_dtype())
        features = file.create_dataset("features", (len(ids), *spec.shape), attributes["dtype"])
        row = crc = 0
        for block in blocks:
            features[row : row + len(block)] = block
            crc = zlib.crc32(np.ascontiguousarray(block).data, crc)
            row += len(block)
        file.create_dataset("finished", data=np.arange(len(ids)) < row)
        file.attrs["crc32"] = crc


def require_same(mine: Mapping[str, Any], other: Mapping[str, Any], my_name: str, other_name: str) -> None:
    """Raise ``FeatureStoreError``, naming both sides, unless they agree in ``IDENTITY`` and in the shape of an item."""
    for name in (*IDENTITY, "shape"):
        left, right = ((_shape(side) if name == "shape" else side[name]) for side in (mine, other))
        if left != right:
            difference = f"{my_name} has {name.replace('_', ' ')} {left}, {other_name} has {right}"
            raise FeatureStoreError(f"{difference}; use another file")


def parts_folder(path: Path) -> Path:
    """Where the rows of ``path`` are while it is being written: beside the file itself, not beside a link to it."""
    path = Path(os.path.realpath(path))
    return path.with_name(path.name + ".parts")


def part_files(folder: Path) -> list[Path]:
    """The files of rows in ``folder``, in the order in which they were written."""
    return sorted((path for path in folder.glob("*.h5") if path.stem.isdecimal()), key=lambda path: int(path.stem))


def _shape(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    return read_spec(json.loads(attributes["spec"])).shape


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
