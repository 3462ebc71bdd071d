"""The shards of a run: the same sources give the same shards, on every machine and after every restart.

A tar is one shard. Images and rows of tables are cut into shards of equal size.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

from captioner.data.images import SUFFIXES, find_named
from captioner.data.tars import TARS
from captioner.errors import ImageError, UsageError
from captioner.places import find_store, is_address, mark, store_errors
from captioner.scale.patterns import expand_braces
from captioner.scale.tables import TABLES, count_rows

SHARD_SIZE = 1000
"""Images or rows of a shard, for sources that are not cut yet."""


@dataclass(frozen=True)
class Shard:
    """A piece of work."""

    kind: str
    """tar, table, images, or store: a feature store that is exported."""
    source: str
    """The tar or table; for images the first of them."""
    column: str = ""
    """Of a table: the column with paths or bytes."""
    first: int = 0
    """Of a table: number of its first row."""
    count: int | None = None
    """Rows or images; None for a tar, which nobody has read yet."""
    images: tuple[str, ...] = field(default=(), repr=False)
    """Paths of images."""
    mark: tuple[int, ...] = ()
    """Size (bytes) and time of change (ns) of a tar or table on this disk."""
    name: str = ""
    """The shard's number in five digits or more; the names of its files begin with it."""

    def digest(self, settings: str) -> str:
        """SHA-256 of all that decides the output: the shard, and the digest of the run's settings."""
        return hashlib.sha256(json.dumps([settings, asdict(self)], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What the sources hold."""

    shards: list[Shard]
    errors: list[ImageError]
    """Sources that name nothing, and images of folders in formats that are not read."""


def is_shard_source(argument: str) -> bool:
    """Whether only this package reads a source: tars, tables and addresses of fsspec, also as patterns."""
    return not os.path.isdir(argument) and argument.lower().endswith((*TARS, *TABLES))


def make_plan(arguments: Sequence[str], column: str = "path", size: int = SHARD_SIZE) -> Plan:
    """The shards of ``arguments``: files, folders and patterns, with braces, of images, tars and tables.

    Tars and tables come first, in the order of the arguments. Raises ``DataError`` for one that cannot be read.
    """
    shards: list[Shard] = []
    errors: list[ImageError] = []
    images: list[str] = []
    for source in _sources(arguments):
        if isinstance(source, ImageError):
            errors.append(source)
        elif not is_shard_source(source):
            images.append(source)
        elif source.lower().endswith(TARS):
            shards.append(Shard("tar", source, mark=mark(source)))
        else:
            shards += _table_shards(source, column, size)
    for first in range(0, len(images), size):
        some = tuple(images[first : first + size])
        shards.append(Shard("images", some[0], count=len(some), images=some))
    return Plan([replace(shard, name=f"{number:05d}") for number, shard in enumerate(shards)], errors)


def _table_shards(source: str, column: str, size: int) -> Iterator[Shard]:
    whole, total = Shard("table", source, column, mark=mark(source)), count_rows(source)
    for first in range(0, total, size):
        yield replace(whole, first=first, count=min(size, total - first))


def _sources(arguments: Sequence[str]) -> Iterator[str | ImageError]:
    """Tars, tables and images by name, in order."""
    for argument in arguments:
        if argument == "-":
            raise UsageError("paths on stdin cannot be read again after a restart; write them into a CSV file")
        for name in [argument] if os.path.lexists(argument) else expand_braces(argument):
            if is_address(name):
                yield from _addresses(name)
            elif is_shard_source(name):
                yield from _files(name)
            else:
                for found in find_named([name]):
                    yield found if isinstance(found, ImageError) else str(found.path)


def _files(name: str) -> Sequence[str | ImageError]:
    """Tars or tables by name or pattern."""
    if os.path.lexists(name) or not glob.has_magic(name):
        return [name] if os.path.exists(name) else [ImageError(name, "no such file")]
    return sorted(glob.glob(name, recursive=True)) or [ImageError(name, "no file matches this pattern")]


def _addresses(name: str) -> Sequence[str | ImageError]:
    """What an address with ``*``, ``?`` or ``[`` matches, or the address itself."""
    if not is_shard_source(name) and not name.lower().endswith(tuple(SUFFIXES)):
        return [ImageError(name, "is not the address of tars, tables or images; end it with *.tar, for example")]
    if not glob.has_magic(name):
        return [name]
    store, path = find_store(name)
    with store_errors(name):
        found = [store.unstrip_protocol(one) for one in sorted(store.glob(path))]
    return found or [ImageError(name, "nothing matches this pattern")]
