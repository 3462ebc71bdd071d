"""Divide the sources of a run into shards: the same sources give the same shards on every machine and every restart.

A tar is one shard. Images and rows of tables are divided into shards of equal size.
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
"""Images or rows of a shard, unless the source is a tar."""


@dataclass(frozen=True)
class Shard:
    """A part of a run that is processed, retried and recorded as a whole."""

    kind: str
    """tar, table, images, or store (a feature store that is exported)."""
    source: str
    """The tar or table; for images, the first of them."""
    column: str = ""
    """For a table: the column with paths or bytes."""
    first: int = 0
    """For a table: the number of its first row."""
    count: int | None = None
    """Number of rows or images; None for a tar, which has not been read yet."""
    images: tuple[str, ...] = field(default=(), repr=False)
    """Paths of images."""
    mark: tuple[int, ...] = ()
    """Size (bytes) and modification time (ns) of a local tar or table."""
    name: str = ""
    """The shard's number, in at least five digits; its files' names begin with it."""

    def digest(self, settings: str) -> str:
        """SHA-256 of everything that affects the output: the shard, and the digest of the run's settings."""
        return hashlib.sha256(json.dumps([settings, asdict(self)], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """The shards of the sources, and the errors found in them."""

    shards: list[Shard]
    errors: list[ImageError]
    """Sources that match nothing, and images in folders whose formats cannot be read."""


def is_shard_source(argument: str) -> bool:
    """Whether a source is a tar, a table or a pattern of them, which only this package reads."""
    return not os.path.isdir(argument) and argument.lower().endswith((*TARS, *TABLES))


def make_plan(arguments: Sequence[str], column: str = "path", size: int = SHARD_SIZE) -> Plan:
    """The shards of ``arguments``: images, tars and tables, as files, folders and patterns (with braces).

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
    """Yield the tars, tables and images by name, in order."""
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
    """Tars or tables with this name, or that match this pattern."""
    if os.path.lexists(name) or not glob.has_magic(name):
        return [name] if os.path.exists(name) else [ImageError(name, "no such file")]
    return sorted(glob.glob(name, recursive=True)) or [ImageError(name, "no file matches this pattern")]


def _addresses(name: str) -> Sequence[str | ImageError]:
    """The matches of an address that contains ``*``, ``?`` or ``[``, or else the address itself."""
    if not is_shard_source(name) and not name.lower().endswith(tuple(SUFFIXES)):
        return [ImageError(name, "is not the address of tars, tables or images; end it with *.tar, for example")]
    if not glob.has_magic(name):
        return [name]
    store, path = find_store(name)
    with store_errors(name):
        found = [store.unstrip_protocol(one) for one in sorted(store.glob(path))]
    return found or [ImageError(name, "nothing matches this pattern")]
