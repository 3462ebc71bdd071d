"""Write the records of a shard as JSON lines or Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from captioner.errors import UsageError
from captioner.optional import require

FORMATS = ("jsonl", "parquet")
ROWS = 10_000
"""Rows of a Parquet row group, which is held in memory until it is written."""

Fields = Mapping[str, Any]
Write = Callable[[Fields], None]


def check_format(name: str) -> None:
    """Raise ``UsageError`` for an unknown format, ``MissingDependency`` if its package is not installed."""
    if name not in FORMATS:
        raise UsageError(f"--output-format {name}: choose one of {', '.join(FORMATS)}")
    if name == "parquet":
        require("pyarrow.parquet", "scale")


@contextmanager
def open_records(path: Path, kind: str, columns: Mapping[str, str], digest: str) -> Iterator[Write]:
    """Open the file ``path`` and give a function that writes a record with ``columns`` into it.

    The columns' types are pyarrow's names, or ``float16[1280]`` for an array of 1,280 numbers. A record without an
    array gets one of zeros, because pyarrow before 26 cannot read a missing list of fixed size.

    ``digest`` goes into the metadata of a Parquet file.
    """
    if kind == "jsonl":
        with path.open("w", encoding="utf-8") as stream:
            yield lambda record: print(json.dumps(record), file=stream)
        return
    pyarrow, parquet = require("pyarrow", "scale"), require("pyarrow.parquet", "scale")
    types = {name: _type(pyarrow, text) for name, text in columns.items()}
    schema = pyarrow.schema(types.items(), metadata={"captioner": digest})
    empty = {name: np.zeros(kind.list_size, np.float16) for name, kind in types.items() if hasattr(kind, "list_size")}
    waiting: list[Fields] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def write(record: Fields) -> None:
            waiting.append({**record, **{name: zeros for name, zeros in empty.items() if record.get(name) is None}})
            if len(waiting) == ROWS:
                flush()

        yield write
        flush()


def _type(pyarrow: Any, text: str) -> Any:
    """The type called ``text``: such as ``string``, or ``float16[1280]`` for a list of fixed size."""
    name, _, size = text.rstrip("]").partition("[")
    scalar = pyarrow.type_for_alias(name)
    return pyarrow.list_(scalar, int(size)) if size else scalar
