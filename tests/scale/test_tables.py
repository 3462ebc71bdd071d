from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioner.errors import DataError
from captioner.scale.tables import count_rows, table_rows


def write_table(path: Path, values: list[str]) -> Path:
    if path.suffix == ".csv":
        path.write_text("other,path\n" + "".join(f'1,"{value}"\n' for value in values), encoding="utf-8-sig")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"path": value}) + "\n" for value in values))
    else:
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.table({"path": values}), path, row_group_size=3)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_pieces_of_a_table_are_its_rows(tmp_path: Path, name: str) -> None:
    """Would catch rows that are lost or repeated between shards, and row groups that are miscounted."""
    values = [f"{number},é.png" for number in range(10)]
    path = str(write_table(tmp_path / name, values))
    assert count_rows(path) == 10
    for size in (1, 2, 3, 4, 10):
        pieces = [row for first in range(0, 10, size) for row in table_rows(path, "path", first, min(size, 10 - first))]
        assert pieces == [(value, value) for value in values]
    with pytest.raises(DataError, match="no column 'image'"):
        list(table_rows(path, "image", 0, 1))


def test_bytes_of_images(tmp_path: Path) -> None:
    """Would catch bytes taken for a path, and rows without a key."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = str(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"image": [b"one", None], "key": ["k", None]}), path)
    assert list(table_rows(path, "image", 0, 2)) == [("k", b"one"), ("row 1", None)]
    parquet.write_table(
        pa.table({"image": [{"bytes": b"one", "path": "a.png"}, {"bytes": None, "path": "b.png"}]}), path
    )
    assert list(table_rows(path, "image", 0, 2)) == [("a.png", b"one"), ("b.png", "b.png")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1 and nothing"),
        ("a.jsonl", b"[1]\n"),
        ("a.jsonl", b'{"path": \n'),
        ("a.jsonl", b"\xff\n"),
        ("a.csv", b"path\n\xff\n"),
        ("a.csv", b"path\n" + b"x" * 2_000_000),
        ("a.csv", b"path\n" + b"x" * 200_000),
    ],
)
def test_a_damaged_table_is_one_error(tmp_path: Path, name: str, content: bytes) -> None:
    """Would catch a traceback of pyarrow, csv or json."""
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        count_rows(str(tmp_path / name))
