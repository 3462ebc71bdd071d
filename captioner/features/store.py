"""The feature store: one HDF5 file a backbone with ids, features, a mask of finished rows and what made them.

    /            attributes: format, version, backbone (key), spec (JSON), preprocessing (digest), weights_digest,
                 dtype, crops, mirrored, precision, part, provenance (JSON), crc32 (of the finished features' bytes)
    /ids         (N,) UTF-8 text
    /features    (N, D) float16 or float32, contiguous
    /finished    (N,) bool; False where an image could not be read

While a store is being written its rows wait in ``FILE.parts/`` as small files of the same format, each written under
a temporary name and then renamed, and are merged into ``FILE`` at the end by one rename: whenever a process is killed,
what is there can be opened, and only the rows of the last few seconds are lost. A folder of files reads as one store.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from weakref import WeakSet

import h5py
import numpy as np

from captioner.backbones.spec import BackboneSpec
from captioner.errors import FeatureStoreError
from captioner.files import atomic_path
from captioner.provenance import provenance

try:
    import fcntl
except ImportError:  # Windows: two writers of one file are not noticed there
    fcntl = None  # type: ignore[assignment]

FORMAT = "captioner-features"
VERSION = 1
DTYPES = ("float16", "float32")
IDENTITY = ("backbone", "preprocessing", "weights_digest", "dtype", "crops", "mirrored", "precision")
"""Attributes in which all files of a store, and all runs that write it, must agree."""
FLUSH_ROWS = 512
FLUSH_SECONDS = 5.0
_locks: WeakSet[IO[str]] = WeakSet()


class FeatureWriter:
    """Writes the store ``path``, or adds to it what is missing.

    ``with FeatureWriter(...) as writer:`` merges when the block ends well, and keeps the rows for the next run when it
    does not. Raises ``FeatureStoreError`` where ``path`` was made otherwise, naming both sides, where another process
    writes it, and for values that do not fit.
    """

    def __init__(
        self,
        path: str | Path,
        spec: BackboneSpec,
        weights_digest: str,
        dtype: str = "float16",
        *,
        crops: int = 1,
        mirrored: bool = False,
        precision: str = "float32",
        part: tuple[int, int] = (1, 1),
    ) -> None:
        if dtype not in DTYPES:
            raise FeatureStoreError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
        self.path = Path(path)
        self.parts = self.path.with_name(self.path.name + ".parts")
        self.dimension = spec.dimension
        self.dtype = np.dtype(dtype)
        self.attributes: dict[str, Any] = {
            "backbone": spec.key,
            "spec": json.dumps(spec.to_dict()),
            "preprocessing": spec.digest,
            "weights_digest": weights_digest,
            "dtype": dtype,
            "crops": crops,
            "mirrored": mirrored,
            "precision": precision,
            "part": f"{part[0]}/{part[1]}",
            "provenance": json.dumps(provenance()),
        }
        self._waiting: dict[str, np.ndarray] = {}
        self._planned: dict[str, None] = {}
        self._flushed = time.monotonic()
        self._lock = _locked(self.parts)
        try:
            self.finished = self._read_finished()
        except BaseException:
            self._unlock()
            raise

    def plan(self, ids: Iterable[str]) -> list[str]:
        """Announce rows; returns those still missing. What stays missing is kept as an unfinished row."""
        self._planned.update(dict.fromkeys(ids))
        return [name for name in self._planned if name not in self.finished]

    def add(self, id: str, vector: np.ndarray) -> None:
        """Keep one feature vector (D,); an id that is there already is not written again."""
        if vector.shape != (self.dimension,):
            raise FeatureStoreError(f"{self.path}: {id} has shape {vector.shape}, expected ({self.dimension},)")
        if not np.isfinite(vector).all():
            raise FeatureStoreError(f"{self.path}: the feature of {id} is not finite; try --precision float32")
        top = float(np.abs(vector).max())
        if top > float(np.finfo(self.dtype).max):
            raise FeatureStoreError(f"{self.path}: {id} has {top:.3g}, too large for float16; use --dtype float32")
        if id not in self.finished:
            self._waiting[id] = vector.astype(self.dtype)
            self.finished.add(id)
        if len(self._waiting) >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make every added row safe on disk."""
        if self._waiting:
            number = 1 + max((int(chunk.stem) for chunk in _chunks(self.parts)), default=0)
            rows = np.stack(list(self._waiting.values()))
            _write(self.parts / f"{number:06d}.h5", self.attributes, list(self._waiting), [rows], len(rows))
            self._waiting.clear()
        self._flushed = time.monotonic()

    def close(self, merge: bool = True) -> None:
        """Make all rows safe and, with ``merge``, put them into one file; then let other processes write."""
        try:
            self.flush()
            if merge:
                self._merge()
                shutil.rmtree(self.parts, ignore_errors=True)
        finally:
            self._unlock()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(merge=error is None)

    def _read_finished(self) -> set[str]:
        finished: set[str] = set()
        for file in self._files():
            _require_same(file.attributes, self.attributes, str(file.path), "this run")
            finished.update(name for name, done in zip(file.ids, file.finished, strict=True) if done)
        return finished

    def _files(self) -> list[_File]:
        if self.path.is_dir():
            raise FeatureStoreError(f"{self.path}: is a folder; give a file name, or --part to write a store in parts")
        return [_File(path) for path in [self.path, *_chunks(self.parts)] if path.exists()]

    def _merge(self) -> None:
        """One file with every finished row once, and the planned rows that have no feature behind them."""
        files = self._files()
        seen: dict[str, None] = {}
        blocks: list[tuple[_File, np.ndarray]] = []
        for file in files:
            fresh = [row for row, name in enumerate(file.ids) if file.finished[row] and name not in seen]
            seen.update(dict.fromkeys(file.ids[row] for row in fresh))
            blocks.append((file, np.array(fresh, np.int64)))
        broken = [name for file in files[:1] for name in file.ids if name not in seen]
        ids = list(dict.fromkeys([*seen, *self._planned, *broken]))
        rows = (file.features[chosen] for file, chosen in blocks if len(chosen))
        merged = self.parts / "merged.h5"  # in there nothing is left behind when the process is killed
        _write(merged, self.attributes, ids, rows, len(seen))
        os.replace(merged, self.path)

    def _unlock(self) -> None:
        self._lock.close()


class FeatureStore:
    """Reads a store: a file, or a folder of files written by parts. Files are opened when first needed.

    ``mirrored`` says what is wanted: features of images as they are, of mirrored ones, or (None) either.
    An object may be handed to other processes, forked or spawned. Raises ``FeatureStoreError`` for what is not a
    store of this version, for one of the other kind, and for files in a folder that different backbones made.
    """

    def __init__(self, path: str | Path, *, mirrored: bool | None = False) -> None:
        self.path = Path(path)
        self.mirrored = mirrored

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "mirrored": self.mirrored}

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id: str) -> bool:
        return id in self._rows

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the (first) file, as in the head of this module."""
        return self._files[0].attributes

    @property
    def spec(self) -> BackboneSpec:
        """The backbone's record."""
        return BackboneSpec.from_dict(json.loads(self.attributes["spec"]))

    @property
    def weights_digest(self) -> str:
        """Digest of the weights that made the features."""
        return str(self.attributes["weights_digest"])

    @property
    def dtype(self) -> str:
        """float16 or float32."""
        return str(self.attributes["dtype"])

    @property
    def dimension(self) -> int:
        """Length of a feature vector."""
        return self._files[0].shape[1]

    @cached_property
    def ids(self) -> list[str]:
        """Ids of all finished rows."""
        return list(self._rows)

    @cached_property
    def unfinished(self) -> list[str]:
        """Ids of rows without a feature: images that could not be read."""
        named = (name for file in self._files for name in file.ids)
        return [name for name in dict.fromkeys(named) if name not in self._rows]

    def get(self, ids: Sequence[str]) -> np.ndarray:
        """Features of ``ids`` in that order, (N, D) float32; names up to three that are not there."""
        missing = [name for name in ids if name not in self._rows]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            lack = "".join(f"; part {part} is not there" for part in self.missing_parts[:1])
            file = missing[0].rpartition("/")[2]
            alike = next((name for name in self._rows if name.rpartition("/")[2] == file), None)
            if alike:  # a name is the path below what was given to extract
                lack += f"; it has {alike}, as captioner extract was given another folder than the images' own"
            raise FeatureStoreError(f"{self.path}: no features of {', '.join(missing[:3])}{more}{lack}")
        places = np.array([self._rows[name] for name in ids], np.int64).reshape(-1, 2)  # (N, 2): file, row
        values = np.empty((len(places), self.dimension), np.float32)
        for number in np.unique(places[:, 0]):
            here = places[:, 0] == number
            values[here] = self._files[number].features[places[here, 1]]
        return values

    def check_backbone(self, spec: BackboneSpec, weights_digest: str = "") -> None:
        """Raise ``FeatureStoreError`` unless this backbone, with these weights where given, made the features."""
        wanted = {"backbone": spec.key, "preprocessing": spec.digest}
        if weights_digest:
            wanted["weights_digest"] = weights_digest
        _require_same(self.attributes, wanted, str(self.path), "the model")

    @property
    def missing_parts(self) -> list[str]:
        """Parts, as ``2/4``, that a store written by several processes still lacks."""
        here = {file.attributes["part"] for file in self._files}
        counts = {int(part.split("/")[1]) for part in here}
        return [f"{i}/{n}" for n in sorted(counts) for i in range(1, n + 1) if f"{i}/{n}" not in here]

    def verify(self) -> list[str]:
        """What is wrong with the store, a line each: values not finite, ids repeated, rows or parts missing."""
        problems = []
        named: dict[str, Path] = {}
        for file in self._files:
            if not len(file.ids) == len(file.finished) == file.shape[0]:
                problems.append(f"{file.path}: {len(file.ids)} ids, {len(file.finished)} marks, {file.shape[0]} rows")
                continue
            for name, done in zip(file.ids, file.finished, strict=True):
                if name in named and done:
                    problems.append(f"{name} is in {named[name]} and in {file.path}")
                if done:
                    named[name] = file.path
            bad, crc = _read_through(file)
            if file.attributes.get("crc32", crc) != crc:  # stores of before there was one lack it
                problems.append(f"{file.path}: the features are not those that were written; delete it, extract again")
            if bad:
                problems.append(f"{file.path}: {len(bad)} rows hold values that are not finite, first {bad[0]}")
        if self.unfinished:
            problems.append(f"{len(self.unfinished)} rows are unfinished, first {self.unfinished[0]}")
        problems += [f"part {part} is missing" for part in self.missing_parts]
        if self.is_partial:
            problems.append("writing was interrupted; run the same extraction again to finish it")
        return problems

    def summary(self) -> dict[str, Any]:
        """What the store is, by name: format, rows, dimension, backbone, weights, preprocessing, precision."""
        kept = self.attributes
        return {
            "format": f"{kept['format']} version {kept['version']}",
            "rows": len(self) + len(self.unfinished),
            "finished": len(self),
            "dimension": self.dimension,
            "dtype": kept["dtype"],
            "backbone": kept["backbone"],
            "weights": kept["weights_digest"],
            "preprocessing": f"{kept['preprocessing']} ({_describe(self.spec)})",
            "crops": kept["crops"],
            "mirrored": kept["mirrored"],
            "precision": kept["precision"],
            "parts": ", ".join(sorted({file.attributes["part"] for file in self._files})),
            "complete": not (self.is_partial or self.unfinished or self.missing_parts),
        }

    @property
    def is_partial(self) -> bool:
        """Whether rows wait in ``FILE.parts`` for a run that finishes the store."""
        return any(".parts" in file.path.parent.suffixes for file in self._files)

    @cached_property
    def _files(self) -> list[_File]:
        if self.path.is_dir():
            paths = sorted(self.path.glob("*.h5")) + sorted(self.path.glob("*.h5.parts/[0-9]*.h5"))
        else:
            paths = [self.path] if self.path.exists() else []
            paths += _chunks(self.path.with_name(self.path.name + ".parts"))
        if not paths:
            reason = "no feature files in this folder" if self.path.is_dir() else "no such file"
            raise FeatureStoreError(f"{self.path}: {reason}; make features with captioner extract")
        files = [_File(path) for path in paths]
        for file in files[1:]:
            _require_same(file.attributes, files[0].attributes, str(file.path), str(files[0].path))
        if self.mirrored is not None and self.mirrored != files[0].attributes["mirrored"]:
            kinds = ("images as they are", "mirrored images (captioner extract --mirror)")
            raise FeatureStoreError(f"{self.path}: made of {kinds[not self.mirrored]}, wanted: {kinds[self.mirrored]}")
        return files

    @cached_property
    def _rows(self) -> dict[str, tuple[int, int]]:
        """Id to (file, row) of every finished row; the first where an id repeats."""
        rows: dict[str, tuple[int, int]] = {}
        for number, file in enumerate(self._files):
            for row, (name, done) in enumerate(zip(file.ids, file.finished, strict=False)):
                if done:
                    rows.setdefault(name, (number, row))
        return rows


@dataclass(frozen=True, eq=False)
class _File:
    """One HDF5 file, checked when made. It is never held open, so nothing is shared between processes."""

    path: Path

    def __post_init__(self) -> None:
        self.attributes  # noqa: B018  # refuses other files now rather than later

    @cached_property
    def attributes(self) -> dict[str, Any]:
        with self._open() as file:
            attributes = {name: _plain(value) for name, value in file.attrs.items()}
            if attributes.get("format") != FORMAT:
                raise FeatureStoreError(f"{self.path}: an HDF5 file, but not of captioner's features")
            if attributes.get("version") != VERSION:
                raise FeatureStoreError(
                    f"{self.path}: format version {attributes.get('version')}, this program reads version {VERSION};"
                    " extract the features again"
                )
            attributes.setdefault("mirrored", False)  # stores of before there were others
            lacking = [name for name in (*IDENTITY, "spec", "part") if name not in attributes]
            lacking += [name for name in ("ids", "features", "finished") if name not in file]
            if lacking:
                raise FeatureStoreError(f"{self.path}: damaged, it lacks {lacking[0]!r}; extract the features again")
            return attributes

    @cached_property
    def ids(self) -> list[str]:
        with self._open() as file:
            return [name.decode() for name in file["ids"][:]]

    @cached_property
    def finished(self) -> np.ndarray:
        with self._open() as file:
            return np.asarray(file["finished"][:], dtype=bool)

    @cached_property
    def shape(self) -> tuple[int, int]:
        with self._open() as file:
            rows, dimension = file["features"].shape
            return rows, dimension

    @property
    def features(self) -> np.ndarray:
        """(N, D), as a view of the file: only the rows that are asked for are read."""
        with self._open() as file:
            data = file["features"]
            offset = data.id.get_offset()
            if data.size and offset is None:  # another program stored it in chunks
                return np.asarray(data[:])
            if not data.size:
                return np.empty(data.shape, data.dtype)
            return np.memmap(self.path, data.dtype, "r", offset, data.shape)

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            file = h5py.File(self.path, "r", locking=False)
        except FileNotFoundError:
            raise FeatureStoreError(f"{self.path}: no such file; make features with captioner extract") from None
        except OSError as error:
            raise FeatureStoreError(f"{self.path}: not a readable HDF5 file ({error}); extract again") from None
        try:
            with file:
                yield file
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:  # of h5py
            raise FeatureStoreError(f"{self.path}: damaged ({error}); delete it and extract again") from None


def _write(
    path: Path, attributes: Mapping[str, Any], ids: Sequence[str], blocks: Iterable[np.ndarray], done: int
) -> None:
    """One file, whole or not at all: ``done`` finished rows from ``blocks`` (each (n, D)), the other ids unfinished."""
    dimension = json.loads(attributes["spec"])["dimension"]
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, **attributes})
        file.create_dataset("ids", data=list(ids), shape=(len(ids),), dtype=h5py.string_dtype())
        file.create_dataset("finished", data=np.arange(len(ids)) < done)
        features = file.create_dataset("features", (len(ids), dimension), attributes["dtype"])
        row = crc = 0
        for block in blocks:
            features[row : row + len(block)] = block
            crc = zlib.crc32(np.ascontiguousarray(block).data, crc)
            row += len(block)
        file.attrs["crc32"] = crc
        assert row == done, f"{row} rows for {done} ids"


def _require_same(mine: Mapping[str, Any], other: Mapping[str, Any], my_name: str, other_name: str) -> None:
    for name in IDENTITY:
        if name in other and mine[name] != other[name]:
            label = name.replace("_", " ")
            facts = f"{my_name} has {label} {mine[name]}, {other_name} has {other[name]}"
            raise FeatureStoreError(f"{facts}; use another file")


def _describe(spec: BackboneSpec) -> str:
    size = f"{spec.resize} to {spec.size}" + (f" from {spec.shorter}" if spec.shorter > spec.size else "")
    return f"{size} pixels, {spec.filter}, output {spec.output or 'of the network'}"


def _read_through(file: _File) -> tuple[list[str], int]:
    """Ids of finished rows with infinite values or none, and the checksum of all finished rows; read in pieces."""
    features, bad, crc = file.features, [], 0
    for start in range(0, len(features), 4096):
        done = file.finished[start : start + 4096]
        rows = features[start : start + 4096]
        bad += [file.ids[start + int(row)] for row in np.flatnonzero(~np.isfinite(rows).all(1) & done)]
        crc = zlib.crc32(np.ascontiguousarray(rows[done]).data, crc)
    return bad, crc


def _chunks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.h5") if re.fullmatch(r"\d+", path.stem))


def _locked(folder: Path) -> IO[str]:
    """An open file that this process alone has locked; the kernel lets go of it however the process ends."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = (folder / "lock").open("w")
            if fcntl is None:
                return handle
            _locks.add(handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle.fileno()), os.stat(folder / "lock")):
                return handle
        except FileNotFoundError:  # another process has just finished and tidied up
            continue
        except BlockingIOError:
            handle.close()
            raise FeatureStoreError(f"{folder.with_suffix('')}: another process is writing it; use --part") from None
        handle.close()


def _let_go() -> None:
    """In a forked process: give up locks that only its parent should hold, or they would outlive a killed parent."""
    for handle in list(_locks):
        handle.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
