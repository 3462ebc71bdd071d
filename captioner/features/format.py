"""The format of a feature file, and reading and writing one such file.

    /            attributes: format, version, feature (the spec's key), spec (JSON), spec_digest, weights_digest, dtype,
                 crops, mirrored, precision, part, provenance (JSON), crc32 (of the finished features' bytes),
                 index_crc32 (of ids and finished)
    /ids         (N,) UTF-8 text
    /features    (N, D) or (N, T, D) float16 or float32, contiguous
    /finished    (N,) bool; False where an item has no feature, such as an image that cannot be read
    /checksums   (N,) uint32, CRC-32 of each finished row's bytes

HDF5's format 1.10 has checksums of its own metadata. Files without it, index_crc32 and checksums, written by older
releases, can be read too.

While ``FILE`` is being written, its rows are in ``FILE.parts/``, in files of the same format numbered from 1.
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

from captioner.errors import CaptionerError, FeatureStoreError
from captioner.features.spec import FeatureSpec, read_spec
from captioner.files import atomic_path, check_readable, require_regular, stored_dataset
from captioner.parts import MOST_PARTS, find_part

FORMAT = "captioner-features"
VERSION = 2
DTYPES = ("float16", "float32")
IDENTITY = ("feature", "spec_digest", "weights_digest", "dtype", "crops", "mirrored", "precision")
"""Attributes in which all files of a store, and all runs that write to it, must agree."""
TYPES: dict[str, type] = {
    **dict.fromkeys((*IDENTITY, "spec", "part"), str),
    "crops": int,
    "mirrored": bool,
    "crc32": int,
}
"""Type of each attribute that a file must have."""
READ_AT_ONCE = 4096
"""Rows in memory at a time when a whole file is read."""


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
                raise FeatureStoreError(f"{self.path}: an HDF5 file, but not a feature store of captioner")
            if attributes.get("version") != VERSION:
                raise FeatureStoreError(
                    f"{self.path}: format version {attributes.get('version')}, this program reads version {VERSION};"
                    " extract the features again"
                )
            missing = [name for name, kind in TYPES.items() if type(attributes.get(name)) is not kind]
            missing += [name for name in ("ids", "features", "finished") if name not in file]
            if missing:
                raise FeatureStoreError(
                    f"{self.path}: damaged, {missing[0]!r} is missing or has the wrong type; extract the features again"
                )
            spec = _check_attributes(attributes)
            _check_layout(file, attributes["dtype"], spec.shape)
            return attributes

    @cached_property
    def spec(self) -> FeatureSpec:
        """The specification of the features."""
        return _spec(self.attributes)

    @property
    def ids(self) -> list[str]:
        """Ids of all rows, in the file's order."""
        return self._index[0]

    @property
    def finished(self) -> np.ndarray:
        """(N,) bool: which rows have a feature."""
        return self._index[1]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The ``rows`` (M,), (M, D) or (M, T, D), as stored; an error names a row that is damaged or not finite."""
        values = self._read(rows)
        good = np.isfinite(values).all(tuple(range(1, values.ndim)))  # (M,)
        if self._checksums is not None:
            good &= _checksums(values) == self._checksums[rows]
        if not good.all():
            name = self.ids[rows[int(good.argmin())]]
            raise FeatureStoreError(
                f"{self.path}: the feature of {name} is damaged or not finite; delete the file and extract again"
            )
        return values

    def problems(self) -> list[str]:
        """What is wrong with the rows, one line for each problem; reads the whole file."""
        found, infinite, crc = [], [], 0
        for start in range(0, len(self.ids), READ_AT_ONCE):
            done = self.finished[start : start + READ_AT_ONCE]
            rows = self._read(np.arange(start, start + len(done)))
            finite = np.isfinite(rows).all(tuple(range(1, rows.ndim)))  # (rows,)
            infinite += [self.ids[start + int(row)] for row in np.flatnonzero(~finite & done)]
            crc = zlib.crc32(np.ascontiguousarray(rows[done]).data, crc)
        if self.attributes["crc32"] != crc:
            found.append(f"{self.path}: checksum mismatch, the features were changed; delete it, extract again")
        if infinite:
            found.append(f"{self.path}: {len(infinite)} rows hold values that are not finite, first {infinite[0]}")
        return found

    @cached_property
    def _index(self) -> tuple[list[str], np.ndarray]:
        with self._open() as file:
            ids = [name.decode() for name in file["ids"][:]]
            finished = np.asarray(file["finished"][:], dtype=bool)
            if self.attributes.get("index_crc32", crc := _index_crc(ids, finished)) != crc:
                raise ValueError("the checksum of its ids does not match")
            return ids, finished

    @cached_property
    def _checksums(self) -> np.ndarray | None:
        with self._open() as file:
            return np.asarray(file["checksums"][:]) if "checksums" in file else None

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """The ``rows`` (M,) unchecked, from a memory map if the dataset is contiguous."""
        with self._open() as file:
            data = file["features"]
            offset = data.id.get_offset()
            if not len(rows) or not data.size:
                return np.empty((len(rows), *data.shape[1:]), data.dtype)
            if offset is None:  # chunked by another program; h5py needs ascending rows
                ascending, places = np.unique(rows, return_inverse=True)
                return np.asarray(data[ascending][places])
            return np.asarray(np.memmap(self.path, data.dtype, "r", offset, data.shape)[rows])

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            require_regular(self.path, FeatureStoreError)
            file = h5py.File(self.path, "r", locking=False)
        except FileNotFoundError:
            raise FeatureStoreError(f"{self.path}: no such file; make features with captioner extract") from None
        except OSError as error:
            check_readable(self.path, FeatureStoreError)
            raise FeatureStoreError(f"{self.path}: not a readable HDF5 file ({error}); extract again") from None
        try:
            with file:
                yield file
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:  # raised by h5py
            raise FeatureStoreError(f"{self.path}: damaged ({error}); delete it and extract again") from None


def write_file(
    path: Path, spec: FeatureSpec, attributes: Mapping[str, Any], ids: Sequence[str], blocks: Iterable[np.ndarray]
) -> None:
    """Write one file, atomically. ``blocks`` (each (n, D) or (n, T, D)) are the first ids' rows; others have none."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, **attributes})
        file.create_dataset("ids", data=list(ids), shape=(len(ids),), dtype=h5py.string_dtype())
        features = file.create_dataset("features", (len(ids), *spec.shape), attributes["dtype"])
        checksums = np.zeros(len(ids), np.uint32)
        row = crc = 0
        for block in blocks:
            features[row : row + len(block)] = block
            checksums[row : row + len(block)] = _checksums(block)
            crc = zlib.crc32(np.ascontiguousarray(block).data, crc)
            row += len(block)
        finished = np.arange(len(ids)) < row
        file["finished"], file["checksums"] = finished, checksums
        file.attrs.update({"crc32": crc, "index_crc32": _index_crc(ids, finished)})


def require_same(mine: Mapping[str, Any], other: Mapping[str, Any], my_name: str, other_name: str) -> None:
    """Raise ``FeatureStoreError``, which names both sides, unless ``IDENTITY`` and the shape of an item agree."""
    for name in (*IDENTITY, "shape"):
        left, right = ((_shape(side) if name == "shape" else side[name]) for side in (mine, other))
        if left != right:
            difference = f"{my_name} has {name.replace('_', ' ')} {left}, {other_name} has {right}"
            raise FeatureStoreError(f"{difference}; use another file")


def parts_folder(path: Path) -> Path:
    """The folder of rows while ``path`` is being written: beside the file itself, not beside a link to it."""
    path = Path(os.path.realpath(path))
    return path.with_name(path.name + ".parts")


def part_files(folder: Path) -> list[Path]:
    """The files of rows in ``folder``, in the order they were written."""
    return sorted((path for path in folder.glob("*.h5") if path.stem.isdecimal()), key=lambda path: int(path.stem))


def _check_attributes(attributes: Mapping[str, Any]) -> FeatureSpec:
    """The spec in the attributes of a file; raises ``ValueError`` unless they are consistent."""
    spec = _spec(attributes)
    if (spec.key, spec.digest) != (attributes["feature"], attributes["spec_digest"]):
        raise ValueError("its spec does not match its feature and spec_digest")
    part = find_part(attributes["part"])
    if part is None or attributes["part"] != f"{part[0]}/{part[1]}":
        raise ValueError(f"part should be like 2/4, of {MOST_PARTS} at most")
    return spec


def _check_layout(file: h5py.File, dtype: str, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless the datasets are as the module's docstring says.

    Everything that is later read, or mapped into memory without further checks, is checked here.
    """
    ids, features, finished = (stored_dataset(file, name) for name in ("ids", "features", "finished"))
    if dtype not in DTYPES or features.dtype.name != dtype:
        raise ValueError(
            f"features are {features.dtype} and dtype says {dtype:.20}; it should be {' or '.join(DTYPES)}"
        )
    if features.shape[1:] != shape:
        raise ValueError(f"an item has shape {features.shape[1:]} but its spec says {shape}")
    if h5py.check_string_dtype(ids.dtype) is None or finished.dtype.kind not in "biu":
        raise ValueError(f"ids are {ids.dtype} and finished is {finished.dtype}; they should be texts and bool")
    lengths = {"ids": ids.shape, "finished": finished.shape}
    if "checksums" in file:
        checksums = stored_dataset(file, "checksums")
        lengths["checksums"] = checksums.shape if checksums.dtype.name == "uint32" else ()
    for name, found in lengths.items():
        if found != features.shape[:1]:
            raise ValueError(f"{len(features)} rows, but {name} has shape {found}")


def _checksums(rows: np.ndarray) -> np.ndarray:
    """CRC-32 of the bytes of each row, (M,) uint32."""
    return np.array([zlib.crc32(row.data) for row in np.ascontiguousarray(rows)], np.uint32)


def _index_crc(ids: Sequence[str], finished: np.ndarray) -> int:
    """CRC-32 of ids and marks."""
    return zlib.crc32(finished.tobytes(), zlib.crc32("\n".join(ids).encode(errors="surrogateescape")))


def _spec(attributes: Mapping[str, Any]) -> FeatureSpec:
    try:
        return read_spec(json.loads(attributes["spec"]))
    except CaptionerError as error:
        raise ValueError(f"its spec: {error}") from None


def _shape(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    return _spec(attributes).shape


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
