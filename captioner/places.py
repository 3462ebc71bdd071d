"""Read shards and write their output: in files or, with fsspec, in object stores (``s3://...``).

A file appears complete or not at all: on a disk by renaming, in an object store because uploads are atomic.
"""

from __future__ import annotations

import glob
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from captioner.errors import CaptionerError, DataError, UsageError
from captioner.files import atomic_path, require_regular
from captioner.optional import require


def is_address(name: str) -> bool:
    """Whether ``name`` is an address for fsspec, such as ``s3://bucket/key``."""
    return re.match(r"\w[\w+.-]*://", name) is not None


def find_store(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it; raises ``UsageError`` if fsspec cannot open it."""
    fsspec = require("fsspec", "scale")
    try:
        store, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:  # fsspec says which package to install, or which protocols it knows
        raise UsageError(f"{address}: {error}") from error
    return store, path


@contextmanager
def store_errors(name: str) -> Iterator[None]:
    """Raise errors of a store's own library, such as missing credentials, as ``DataError``."""
    try:
        yield
    except (OSError, CaptionerError):
        raise
    except Exception as error:
        raise DataError(f"{name}: {' '.join(str(error).split())}") from error


@contextmanager
def open_source(name: str) -> Iterator[BinaryIO]:
    """Open a file or an address for reading bytes; raises ``DataError`` if that fails."""
    with ExitStack() as stack:
        try:
            if is_address(name):
                store, path = find_store(name)
                stack.enter_context(store_errors(name))
                opened = store.open(path, "rb")
            else:
                require_regular(name, DataError)
                opened = open(name, "rb")  # noqa: SIM115  # closed below
        except (OSError, ValueError) as error:
            raise DataError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
        yield cast(BinaryIO, stack.enter_context(opened))


def mark(name: str) -> tuple[int, ...]:
    """Numbers that change with the file: its size and modification time (ns); none for an address."""
    if is_address(name):
        return ()
    try:
        status = os.stat(name)
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}; each shard must be there") from error
    return status.st_size, status.st_mtime_ns


class Folder:
    """The output folder: a folder on disk or, if its name contains ``://``, objects in a store."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._store: Any = None
        if is_address(name):
            self._store, self._root = find_store(name)
        elif os.path.lexists(name) and not os.path.isdir(name):
            raise UsageError(f"-o {name} is not a folder; the captions of shards are several files")

    def names(self) -> set[str]:
        """Names of the files in the folder; empty if it does not exist."""
        with suppress(FileNotFoundError):
            if self._store is None:
                return set(os.listdir(self.name))
            self._store.invalidate_cache()
            with store_errors(self.name):
                return {path.rstrip("/").rpartition("/")[2] for path in self._store.ls(self._root, detail=False)}
        return set()

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises ``FileNotFoundError`` if there is none."""
        if self._store is None:
            return Path(self.name, name).read_bytes()
        with store_errors(self.name):
            return bytes(self._store.cat_file(f"{self._root}/{name}"))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path whose file becomes ``name`` when the block ends, or is removed if the block raises."""
        if self._store is None:
            with atomic_path(Path(self.name, name)) as path:
                yield path
            return
        with tempfile.TemporaryDirectory(prefix="captioner-") as folder:
            path = Path(folder, name)
            yield path
            with store_errors(self.name):
                self._put(path)

    def _put(self, path: Path) -> None:
        """Upload a file; folders are created if the store has folders, buckets are not."""
        target = f"{self._root}/{path.name}"
        try:
            self._store.put_file(str(path), target)
        except FileNotFoundError as error:
            top = self._root.partition("/")[0] or "/"
            if not self._store.exists(top):
                raise UsageError(f"{self.name}: {top} does not exist; make it first") from error
            self._store.makedirs(self._root, exist_ok=True)
            self._store.put_file(str(path), target)

    def write(self, name: str, text: str) -> None:
        """Write ``text`` as UTF-8."""
        with self.writing(name) as path:
            path.write_text(text, encoding="utf-8")

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; missing ones are ignored."""
        for name in names:
            with suppress(FileNotFoundError):
                if self._store is None:
                    os.unlink(os.path.join(self.name, name))
                    continue
                with store_errors(self.name):
                    self._store.rm_file(f"{self._root}/{name}")

    def remove_unfinished(self, prefix: str, age: float = 0.0) -> None:
        """Remove files that killed writers left behind and whose names begin with ``prefix``.

        ``age`` (seconds) spares the files of writers that are still at work.
        """
        if self._store is None and os.path.isdir(self.name):
            for path in Path(self.name).glob(f".{glob.escape(prefix)}*.tmp"):
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime >= age:
                        path.unlink()
