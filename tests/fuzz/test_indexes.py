"""Search indexes: an SQLite database and a file of vectors."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner import load
from captioner.search.index import Index
from captioner.search.query import duplicates, query_words, similar
from tests import tiny
from tests.fuzz import SCALARS, VALUES, attempt, corrupted, damaged, fuzz
from tests.fuzz.worker import isolated
from tests.search.test_indexing import update

COLUMNS = ("id", "path", "digest", "size", "mtime_ns", "row", "norm", "caption", "log_prob", "classes")
PROGRAMS = (
    "DROP TABLE images",
    "DROP TABLE words",
    "DROP TABLE settings",
    "DELETE FROM words_data",
    "UPDATE words_data SET block = zeroblob(100)",
    "DELETE FROM words_docsize",
    "CREATE TRIGGER a AFTER INSERT ON images BEGIN DELETE FROM images; END",
    "CREATE VIEW a AS SELECT 1",
    "ALTER TABLE images RENAME TO b",
    "ALTER TABLE images ADD COLUMN c",
    "PRAGMA user_version = 9",
    "PRAGMA application_id = 0",
)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT i AS name, i AS value FROM n"


@cache
def valid() -> tuple[bytes, bytes]:
    """The database and the vectors of an index of four images."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tiny.save_images(place / "photos", 4)
        update(place / "index", load(tiny.save_tiny(place / "tiny.safetensors")), place / "photos")
        return (place / "index" / "index.sqlite").read_bytes(), (place / "index" / "vectors-0.f16").read_bytes()


def read(folder: Path) -> None:
    """Everything that searching asks of an index."""
    with Index(folder) as index:
        assert isinstance(index.model.name, str) and index.generation >= 0
        json.dumps([index.folders(), len(index), str(index.model)])
        for entry in index.page(0, 100):
            assert isinstance(entry.path, str) and entry.norm >= 0 and entry.row >= 0
            json.dumps([entry.caption, entry.log_prob, entry.classes, entry.digest, entry.size])
            assert np.isfinite(index.vectors([entry])).all()
        for match in similar(index, np.ones(index.model.dimension, np.float32), 3):
            assert match.score <= 1
        for word in query_words("a dog on the grass"):
            index.query("SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words)", (word,))
        duplicates(index)


def write(folder: Path, database: bytes, vectors: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "index.sqlite").write_bytes(database)
    (folder / "vectors-0.f16").write_bytes(vectors)
    return folder


@given(data=st.data())
@fuzz
def test_damaged_bytes(tmp_path: Path, data: st.DataObject) -> None:
    """Would catch a crash of SQLite's, and an error of it that is not ours."""
    database, vectors = valid()
    if data.draw(st.booleans()):
        database = data.draw(corrupted(database))
    else:
        vectors = data.draw(damaged(vectors))
    isolated(read, write(tmp_path / "index", database, vectors))


@given(data=st.data())
@fuzz
def test_other_values(tmp_path: Path, data: st.DataObject) -> None:
    """Would catch a value that is believed: SQLite stores any type in any column."""
    folder = write(tmp_path / "index", *valid())
    value = data.draw(SCALARS | st.binary(max_size=4) | VALUES.map(lambda one: json.dumps(one, default=str)))
    with closing(sqlite3.connect(folder / "index.sqlite")) as db, suppress(sqlite3.Error, OverflowError, UnicodeError):
        if data.draw(st.booleans()):
            column = data.draw(st.sampled_from(COLUMNS))
            db.execute(f"UPDATE images SET {column} = ? WHERE id = ?", (value, data.draw(st.integers(1, 4))))
        else:
            name = data.draw(st.sampled_from(["model", "generation", "graph_end"]))
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))
        db.commit()
    attempt(read, folder)


@pytest.mark.parametrize("program", PROGRAMS)
def test_other_tables(tmp_path: Path, program: str) -> None:
    """Would catch a table, view or trigger of somebody else's."""
    folder = write(tmp_path / "index", *valid())
    with closing(sqlite3.connect(folder / "index.sqlite")) as db:
        db.execute(program)
        db.commit()
    attempt(read, folder)


def test_an_endless_view(tmp_path: Path) -> None:
    """Would catch a database that keeps its reader busy for ever."""
    folder = write(tmp_path / "index", *valid())
    with closing(sqlite3.connect(folder / "index.sqlite")) as db:
        db.execute("DROP TABLE settings")
        db.execute(f"CREATE VIEW settings AS {ENDLESS}")
        db.commit()
    assert attempt(lambda: read(folder) or "read") is None
