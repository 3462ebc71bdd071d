"""Tables that list images: Parquet with paths or bytes, CSV and JSON lines with paths."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from captioner.data.records import parse_json
from captioner.errors import DataError, shorten
from captioner.optional import require
from captioner.places import open_source

TABLES = (".parquet", ".csv", ".jsonl", ".ndjson")
LONGEST = 2**20
"""Most characters in a line of CSV or JSON."""
BATCH = 64
"""Rows of Parquet that are in memory at a time."""


def count_rows(source: str) -> int:
    """Number of rows of a table; Parquet gives it in its footer, other tables are read."""
    if source.lower().endswith(".parquet"):
        with _parquet(source) as file:
            return int(file.metadata.num_rows)
    return sum(1 for _ in _text_rows(source))


def table_rows(source: str, column: str, first: int, count: int) -> Iterator[tuple[str, str | bytes | None]]:
    """Yield (key, path or bytes) of ``count`` rows, from row ``first`` on.

    The key of a row with a path is the path. The key of a row with bytes is its column ``key``, the ``path`` beside the
    bytes, or the row's number. Raises ``DataError`` for a table that is damaged or lacks the column.
    """
    if source.lower().endswith(".parquet"):
        rows = _parquet_rows(source, column, first, count)
    else:
        rows = itertools.islice(_text_rows(source), first, first + count)
    for number, row in enumerate(rows, first):
        if column not in row:
            raise DataError(f"{source}: no column {shorten(column)}; it has {shorten(list(row))}, choose with --column")
        yield _entry(row, column, f"row {number}")


def _entry(row: Mapping[str, Any], column: str, number: str) -> tuple[str, str | bytes | None]:
    value, key = row[column], row.get("key")
    if isinstance(value, dict):  # an image as Hugging Face datasets store it
        key = key or value.get("path")
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return (str(key) if key else value), value
    return (str(key) if key else number), value if isinstance(value, bytes) else None


def _text_rows(source: str) -> Iterator[Mapping[str, Any]]:
    with open_source(source) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        try:
            yield from csv.DictReader(_lines(text)) if source.lower().endswith(".csv") else _objects(source, text)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{source}: not a table in UTF-8 ({error})") from error
        except DataError as error:
            raise error if str(error).startswith(source) else DataError(f"{source}: {error}") from error


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Yield lines of at most ``LONGEST`` characters: a damaged file could be one endless line."""
    while line := text.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise DataError(f"a line of more than {LONGEST:,} characters")
        yield line


def _objects(source: str, text: io.TextIOWrapper) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(_lines(text), 1):
        if line.strip():
            value = parse_json(line, f"{source}, line {number}")
            if not isinstance(value, dict):
                raise DataError(f"{source}, line {number}: not a JSON object")
            yield value


@contextmanager
def _parquet(source: str) -> Iterator[Any]:
    pyarrow, parquet = require("pyarrow", "scale"), require("pyarrow.parquet", "scale")
    with open_source(source) as stream:
        try:
            yield parquet.ParquetFile(stream)
        except (pyarrow.ArrowException, OSError, MemoryError) as error:
            raise DataError(f"{source}: damaged, cut off or not a Parquet file ({error})") from error


def _parquet_rows(source: str, column: str, first: int, count: int) -> Iterator[Mapping[str, Any]]:
    """Yield the rows; only the row groups that hold them are read."""
    with _parquet(source) as file:
        groups, start = [], 0
        skipped = first
        for number in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(number).num_rows
            if start + size <= first:
                skipped -= size
            elif start < first + count:
                groups.append(number)
            start += size
        names = file.schema_arrow.names
        if column not in names:
            raise DataError(f"{source}: no column {shorten(column)}; it has {shorten(names)}, choose with --column")
        wanted = [name for name in (column, "key") if name in names]
        batches = file.iter_batches(BATCH, row_groups=groups, columns=wanted)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from itertools.islice(rows, skipped, skipped + count)
