"""Write a feature store so that a killed process loses at most the rows of the last few seconds.

Rows are collected and flushed to small files in ``FILE.parts/``, each written under a temporary name and then renamed.
At the end they are merged into ``FILE`` by one rename. The store can be opened at any moment in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from captioner.errors import FeatureStoreError
from captioner.features.format import DTYPES, FeatureFile, part_files, parts_folder, require_same, write_file
from captioner.features.spec import FeatureSpec
from captioner.files import check_writable, replace_file
from captioner.provenance import provenance

FLUSH_ROWS = 512
FLUSH_SECONDS = 5.0
LOCK = "lock"
"""Name of the lock file in ``FILE.parts``."""


class FeatureWriter:
    """Writes the feature store ``path``, or adds the rows that it lacks.

    As a context manager it merges all rows into one file at the end, or keeps them for the next run if the block
    raises. ``spec`` describes the features, ``weights_digest`` is that of the weights that compute them (empty without
    a network); ``crops``, ``mirrored``, ``precision`` and ``part`` (i, n) are recorded. Raises ``FeatureStoreError`` if
    ``path`` holds other features (naming both), if another process is writing it, and for values that do not fit.
    """

    def __init__(
        self,
        path: str | Path,
        spec: FeatureSpec,
        weights_digest: str = "",
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
        _check_path(self.path)
        self.spec = spec
        self.dtype = np.dtype(dtype)
        self._parts = parts_folder(self.path)
        self._attributes: dict[str, Any] = {
            "feature": spec.key,
            "spec": json.dumps(spec.to_dict()),
            "spec_digest": spec.digest,
            "weights_digest": weights_digest,
            "dtype": dtype,
            "crops": crops,
            "mirrored": mirrored,
            "precision": precision,
            "part": f"{part[0]}/{part[1]}",
            "provenance": json.dumps(provenance()),
        }
        self._buffer: dict[str, np.ndarray] = {}  # rows since the last flush
        self._planned: dict[str, None] = {}
        self._last_flush = time.monotonic()
        self._lock = _lock(self._parts, self.path)
        try:
            self.finished = self._read_finished()
        except BaseException:
            self._lock.release()
            raise

    def plan(self, ids: Iterable[str]) -> list[str]:
        """Announce rows; returns those still missing. A planned row that is never added is stored as unfinished."""
        self._planned.update(dict.fromkeys(ids))
        return [name for name in self._planned if name not in self.finished]

    def add(self, id: str, feature: np.ndarray) -> None:
        """Add one feature, (D,) or (T, D) by the spec; an id that is already in the store is not written again."""
        if feature.shape != self.spec.shape:
            raise FeatureStoreError(f"{self.path}: {id} has shape {feature.shape}, expected {self.spec.shape}")
        if not np.isfinite(feature).all():
            raise FeatureStoreError(f"{self.path}: the feature of {id} is not finite; try --precision float32")
        largest = float(np.abs(feature).max(initial=0))
        if largest > float(np.finfo(self.dtype).max):
            raise FeatureStoreError(f"{self.path}: {id} has {largest:.3g}, too large for float16; use --dtype float32")
        if id not in self.finished:
            self._buffer[id] = feature.astype(self.dtype)
            self.finished.add(id)
        if len(self._buffer) >= FLUSH_ROWS or time.monotonic() - self._last_flush > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write all added rows to disk."""
        if self._buffer:
            number = 1 + max((int(file.stem) for file in part_files(self._parts)), default=0)
            rows = np.stack(list(self._buffer.values()))  # (n, *shape)
            write_file(self._parts / f"{number:06d}.h5", self.spec, self._attributes, list(self._buffer), [rows])
            self._buffer.clear()
        self._last_flush = time.monotonic()

    def close(self, merge: bool = True) -> None:
        """Flush, merge all rows into one file if ``merge``, and release the lock."""
        try:
            self.flush()
            if merge:
                self._merge()
                self._remove_parts()
        finally:
            self._lock.release()
            with suppress(OSError):  # Windows removes the lock file here; the folder is empty only after a merge
                self._parts.rmdir()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(merge=error is None)

    def _read_finished(self) -> set[str]:
        finished: set[str] = set()
        for file in self._files():
            require_same(file.attributes, self._attributes, str(file.path), "this run")
            finished.update(name for name, done in zip(file.ids, file.finished, strict=True) if done)
        return finished

    def _files(self) -> list[FeatureFile]:
        return [FeatureFile(path) for path in [self.path, *part_files(self._parts)] if path.exists()]

    def _merge(self) -> None:
        """Write one file with each finished row once, then the planned rows without a feature."""
        files = self._files()
        seen: dict[str, None] = {}
        chosen: list[tuple[FeatureFile, np.ndarray]] = []
        for file in files:
            new = [row for row, name in enumerate(file.ids) if file.finished[row] and name not in seen]
            seen.update(dict.fromkeys(file.ids[row] for row in new))
            chosen.append((file, np.array(new, np.int64)))
        unfinished = [name for file in files[:1] for name in file.ids if name not in seen]
        ids = list(dict.fromkeys([*seen, *self._planned, *unfinished]))
        blocks = (file.read(rows) for file, rows in chosen if len(rows))
        merged = self._parts / "merged.h5"  # inside the folder, so that a killed process leaves no other file behind
        write_file(merged, self.spec, self._attributes, ids, blocks)
        replace_file(merged, self.path)

    def _remove_parts(self) -> None:
        """Remove the folder, the lock file last, so that files of the next process are not touched."""
        with suppress(OSError):
            for path in self._parts.iterdir():
                if path.name != LOCK:
                    path.unlink()
            (self._parts / LOCK).unlink()
            self._parts.rmdir()


def _check_path(path: Path) -> None:
    """Raise an error for a folder, a device or pipe, and a write-protected file."""
    if path.is_dir():
        raise FeatureStoreError(f"{path}: is a folder; give a file name, or --part to write a store in parts")
    if check_writable(path) is not None and not path.is_file():
        raise FeatureStoreError(f"{path}: is not a regular file, which a store must be to be resumed; choose another")


def _lock(folder: Path, path: Path) -> FileLock:
    """Lock ``folder`` for this process; the system releases the lock however the process ends."""
    lock = FileLock(folder / LOCK, blocking=False, thread_local=False)  # any thread may close the writer
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except FileNotFoundError:  # another process has just finished and removed the folder
            continue
        except Timeout:
            raise FeatureStoreError(f"{path}: another process is writing it; use --part") from None
        return lock
