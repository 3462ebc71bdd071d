"""The index on disk: a folder with an SQLite database and a file of vectors.

``index.sqlite`` holds the files' paths, digests, sizes and times, their captions with log probabilities, their
classes, and words for full-text search; ``vectors-GENERATION.f16`` holds the unit vectors. The database refers to
vectors by row, a row of the vector file is never overwritten, and only what is committed in the database counts. So a
kill at any moment leaves the state of the last commit, and a reader, who reads in one transaction, sees one state.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captioner.data.records import parse_json
from captioner.errors import DataError, SearchIndexError
from captioner.features.spec import LARGEST_ITEM
from captioner.files import cache_folder
from captioner.predictors.base import ClassScore
from captioner.search.vectors import Approximate, Exact, Nearest, VectorFile

DATABASE, LOCK = "index.sqlite", "writer.sqlite"
APPLICATION, VERSION = 0x63617074, 2
"""SQLite's ``application_id`` of an index ("capt"), and the ``user_version`` that this release reads."""
SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE folders (path BLOB PRIMARY KEY);
CREATE TABLE images (
    id INTEGER PRIMARY KEY, path BLOB UNIQUE NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, row INTEGER UNIQUE NOT NULL, norm REAL NOT NULL, caption TEXT NOT NULL,
    log_prob REAL, classes TEXT NOT NULL
);
CREATE INDEX digests ON images (digest);
CREATE VIRTUAL TABLE words USING fts5 (caption, classes, tokenize = "porter unicode61");
"""
COLUMNS = "id, path, digest, size, mtime_ns, row, norm, caption, log_prob, classes"
MOST = 500
"""Most parameters in one query."""


@dataclass(frozen=True)
class Entry:
    """An indexed image."""

    id: int
    path: str
    digest: str
    """SHA-256 of the file."""
    size: int
    """Size of the file in bytes."""
    mtime_ns: int
    """Modification time of the file, from ``os.stat``."""
    row: int
    """Row of its unit vector in the vector file."""
    norm: float
    """Norm of the feature; the vector is the feature divided by it."""
    caption: str
    log_prob: float | None
    """None if the captioner gives none."""
    classes: tuple[ClassScore, ...]
    """The most probable classes, best first; empty if the captioner's network has no class layer."""


@dataclass(frozen=True)
class Model:
    """The models of an index: a captioner, and the networks that compute the features."""

    name: str
    captioner: str
    """SHA-256 of the captioner's file, or of the settings that determine its captions."""
    embedder: str
    """Name of the model whose features are searched."""
    backbone: str
    """Digests of the networks' preprocessing and weights."""
    dimension: int

    def __str__(self) -> str:
        return f"{self.name} (captioner {self.captioner[:12]}, backbone {self.backbone[:12]})"


def default_folder() -> Path:
    """The default folder of the index: ``$CAPTIONER_INDEX``, or ``index`` in captioner's cache folder."""
    return Path(os.environ.get("CAPTIONER_INDEX") or cache_folder() / "index")


class Index:
    """An index as it was when it was opened; several threads may use it.

    Raises ``SearchIndexError`` if ``folder`` holds no index, a damaged one, or one of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / DATABASE).is_file():
            raise _no_index(folder)
        self._lock = threading.Lock()
        self._db = connect(folder, readonly=True)
        self._close = weakref.finalize(self, self._db.close)
        try:
            with database_errors(folder):
                self._db.execute("BEGIN")
                self.model, self.generation = read_model(self._db, folder)
                pairs = self._db.execute("SELECT id, row FROM images ORDER BY row").fetchall()
        except BaseException:
            self._close()
            raise
        if not all(type(number) is int and number >= 0 for pair in pairs for number in pair):
            self._close()
            raise damaged(folder)
        self.ids = np.array([pair[0] for pair in pairs], np.int64)  # (N,)
        self.rows = np.array([pair[1] for pair in pairs], np.int64)  # (N,), ascending
        self.file = VectorFile(vector_path(folder, self.generation), self.model.dimension)

    def __len__(self) -> int:
        return len(self.ids)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._close()

    @cached_property
    def exact(self) -> Exact:
        """Exact search over all vectors."""
        return Exact(self.file.read(self.rows), self.rows)

    @cached_property
    def nearest(self) -> Nearest:
        """The graph of neighbors if ``captioner index`` made one, else ``exact``."""
        graph, end = graph_path(self.folder, self.generation), self.settings().get("graph_end")
        if not isinstance(end, str) or not re.fullmatch("[0-9]{1,12}", end) or not graph.is_file():
            return self.exact
        return Approximate.open(graph, self.file, self.rows, int(end))

    def settings(self) -> dict[str, str]:
        return dict(self.query("SELECT name, value FROM settings"))

    def folders(self) -> list[str]:
        """The folders that were indexed."""
        return [os.fsdecode(path) for (path,) in self.query("SELECT path FROM folders ORDER BY path")]

    def entries(self, ids: Sequence[int]) -> list[Entry]:
        """The images with these ids, in that order; unknown ids are skipped."""
        found: dict[int, Entry] = {}
        for first in range(0, len(ids), MOST):
            some = [int(one) for one in ids[first : first + MOST]]
            marks = ",".join("?" * len(some))
            rows = self.query(f"SELECT {COLUMNS} FROM images WHERE id IN ({marks})", some)
            found |= {entry.id: entry for entry in map(read_entry, rows)}
        return [found[int(one)] for one in ids if int(one) in found]

    def page(self, first: int, count: int) -> list[Entry]:
        """``count`` images from number ``first`` on, newest files first."""
        rows = self.query(f"SELECT {COLUMNS} FROM images ORDER BY mtime_ns DESC, id LIMIT ? OFFSET ?", (count, first))
        return [read_entry(row) for row in rows]

    def at(self, path: str) -> Entry | None:
        """The image that was indexed at a path; None if there is none."""
        rows = self.query(f"SELECT {COLUMNS} FROM images WHERE path = ?", (os.fsencode(path),))
        return read_entry(rows[0]) if rows else None

    def by_row(self, rows: np.ndarray) -> list[Entry]:
        """The images whose vectors are at ``rows``, in that order."""
        return self.entries(self.ids[np.searchsorted(self.rows, rows)].tolist())

    def vectors(self, entries: Sequence[Entry]) -> np.ndarray:
        """The unit vectors of ``entries``, (N, D) float32."""
        return self.file.read(np.array([entry.row for entry in entries], np.int64))

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, database_errors(self.folder):
            return self._db.execute(sql, values).fetchall()


def connect(folder: Path, readonly: bool = False) -> sqlite3.Connection:
    """Open the database. A reader takes no lock, and can read an index on a read-only disk."""
    path = (folder / DATABASE).absolute().as_uri()
    mode = "rwc" if not readonly else "ro" if os.access(folder, os.W_OK) else "ro&immutable=1"
    db = sqlite3.connect(f"{path}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=30)
    db.execute("PRAGMA trusted_schema = OFF")  # the file may come from a stranger
    return db


@contextmanager
def database_errors(folder: Path) -> Iterator[None]:
    """Raise errors of the database as ``SearchIndexError``, with advice."""
    try:
        yield
    except sqlite3.Error as error:
        raise SearchIndexError(
            f"{folder}: the index cannot be read or is damaged ({error}); if this persists, remove it and index "
            "the images again"
        ) from error


def read_model(db: sqlite3.Connection, folder: Path) -> tuple[Model, int]:
    """The models of the index and the generation of its vectors; raises ``SearchIndexError`` for other databases."""
    (application,), (version,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    if application != APPLICATION:
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:  # killed before the first commit
            raise _no_index(folder)
        raise SearchIndexError(f"{folder / DATABASE}: not an index of captioner; name another folder with --index")
    if version != VERSION:
        raise SearchIndexError(
            f"{folder}: an index of version {version}; this captioner reads version {VERSION}: remove that folder and "
            "index the images again"
        )
    _check_schema(db, folder)
    settings = dict(db.execute("SELECT name, value FROM settings").fetchall())
    record, generation = settings.get("model"), settings.get("generation")
    if isinstance(record, str) and isinstance(generation, str) and re.fullmatch("[0-9]{1,9}", generation):
        with suppress(DataError):
            match parse_json(record, "model"):
                case {
                    "name": str(name),
                    "captioner": str(digest),
                    "embedder": str(embedder),
                    "backbone": str(backbone),
                    "dimension": int(size),
                } if 0 < size <= LARGEST_ITEM:
                    return Model(name, digest, embedder, backbone, size), int(generation)
    raise damaged(folder)


def _no_index(folder: Path) -> SearchIndexError:
    return SearchIndexError(f"{folder}: no index here; make one with: captioner index FOLDER")


def damaged(folder: Path) -> SearchIndexError:
    """The error for invalid values in an index."""
    return SearchIndexError(f"{folder}: the index is damaged; remove that folder and index the images again")


def _check_schema(db: sqlite3.Connection, folder: Path) -> None:
    """Raise ``SearchIndexError`` for tables other than ours, and for views and triggers, which could run SQL."""
    known = {" ".join(statement.split()) for statement in SCHEMA.split(";\n")}
    for kind, name, table, sql in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        ours = isinstance(sql, str) and " ".join(sql.split()) in known
        inside = kind == "table" and re.fullmatch("words_(data|idx|content|docsize|config)", str(name))
        automatic = kind == "index" and sql is None and str(table) in ("settings", "folders", "images", "words_idx")
        if not (ours or inside or automatic or str(table) == "words_config"):
            raise damaged(folder)


def create(folder: Path, model: Model) -> None:
    """Make an empty index in ``folder`` unless it has one; raises ``SearchIndexError`` if it holds other files."""
    others = [name for name in os.listdir(folder) if not name.startswith((LOCK, DATABASE))]
    if others and not (folder / DATABASE).is_file():
        raise SearchIndexError(f"{folder}: is not empty and holds no index; name another folder with --index")
    with closing(connect(folder)) as db, database_errors(folder):
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN")
        for statement in SCHEMA.split(";\n"):
            db.execute(statement)
        write_settings(db, model=json.dumps(asdict(model)), generation="0")
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")


def write_settings(db: sqlite3.Connection, **values: str) -> None:
    db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", values.items())


def read_entry(row: Sequence[Any]) -> Entry:
    """The image in a row of ``COLUMNS``; raises ``SearchIndexError`` for invalid values."""
    match row:
        case (
            int(id),
            bytes(path),
            str(digest),
            int(size),
            int(mtime_ns),
            int(place),
            float(norm),
            str(caption),
            (float() | None) as log_prob,
            str(classes),
        ) if place >= 0 and 0 <= norm < math.inf and (log_prob is None or math.isfinite(log_prob)):
            shares = _read_classes(classes)
            return Entry(id, os.fsdecode(path), digest, size, mtime_ns, place, norm, caption, log_prob, shares)
    raise SearchIndexError("an image of the index has damaged values; index all again with: captioner index --rebuild")


def _read_classes(text: str) -> tuple[ClassScore, ...]:
    try:
        match parse_json(text, "the classes of an indexed image"):
            case [*shares] if all(
                isinstance(one, list) and [type(part) for part in one] == [str, float] and 0 <= one[1] <= 1
                for one in shares
            ):
                return tuple(ClassScore(*one) for one in shares)
    except DataError as error:
        raise SearchIndexError(f"{error}; index all again with: captioner index --rebuild") from error
    raise SearchIndexError("an image of the index has damaged classes; index all again with: captioner index --rebuild")


def vector_path(folder: Path, generation: int) -> Path:
    return folder / f"vectors-{generation}.f16"


def graph_path(folder: Path, generation: int) -> Path:
    return folder / f"graph-{generation}.usearch"
