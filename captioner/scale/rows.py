"""The rows of a shard: one image each, as a path or as bytes, with a key."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from captioner.data.images import SUFFIXES
from captioner.data.tars import MOST_BYTES, read_tar, too_large
from captioner.errors import DataError, ImageError
from captioner.places import is_address, open_source
from captioner.scale.shards import Shard


@dataclass(frozen=True)
class Row:
    """One image of a shard, or the error that takes its place."""

    key: str
    """The path as given, or the member's name in its tar."""
    path: str = ""
    data: bytes = b""
    """The bytes of the image file, if ``path`` is empty."""
    error: str = ""


def rows_of(shard: Shard) -> Iterator[Row]:
    """Yield the shard's rows in order, one in memory at a time; raises ``DataError`` if the shard itself is damaged."""
    if shard.kind == "tar":
        for name, data, error in read_tar(shard.source, SUFFIXES):
            yield Row(name, data=data, error=error)
    elif shard.kind == "table":
        from captioner.scale.tables import table_rows

        for key, content in table_rows(shard.source, shard.column, shard.first, shard.count or 0):
            yield _row(key, content)
    elif shard.kind == "store":
        from captioner.features.store import FeatureStore

        names = FeatureStore(shard.source, mirrored=None).ids[shard.first : shard.first + (shard.count or 0)]
        yield from map(Row, names)
    else:
        for path in shard.images:
            yield _remote(path) if is_address(path) else Row(path, path)


class Spool:
    """A temporary folder that gives images a path if they are bytes.

    All images are then opened by the same code.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="captioner-")
        self._numbers = itertools.count()  # several threads may call place()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def place(self, row: Row) -> Path | ImageError:
        """The file of the row's image, or the row's error."""
        if row.error:
            return ImageError(row.key, row.error)
        if not row.data:
            return Path(row.path)
        path = Path(self._folder.name, str(next(self._numbers)))
        path.write_bytes(row.data)
        return path

    def remove(self, path: Path | ImageError) -> None:
        """Remove a file that ``place`` made; other files stay."""
        if isinstance(path, Path) and path.parent == Path(self._folder.name):
            path.unlink()


def _row(key: str, content: str | bytes | None) -> Row:
    if content is None:
        return Row(key, error="no value")
    if isinstance(content, bytes):
        return Row(key, data=content, error=too_large(len(content)) or ("" if content else "no bytes"))
    if is_address(content) and not os.path.lexists(content):
        return Row(key, error="is an address; tables name files, or hold their bytes")
    return Row(key, content)


def _remote(path: str) -> Row:
    try:
        with open_source(path) as stream:
            data = stream.read(MOST_BYTES + 1)
    except (DataError, ImageError) as error:
        return Row(path, error=str(error))
    return Row(path, data=data, error=too_large(len(data)))
