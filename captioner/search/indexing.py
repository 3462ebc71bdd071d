"""Update an index from folders of images: caption new and changed images, and remove deleted ones."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from captioner.data.images import find_images
from captioner.errors import ImageError, SearchIndexError, UsageError, warn
from captioner.files import atomic_path, place, require_regular, sha256
from captioner.predictors.base import Caption
from captioner.predictors.classifier import ClassLayer, class_layer
from captioner.predictors.streams import BATCH_SIZE, batches, prefetch
from captioner.search.index import (
    COLUMNS,
    LOCK,
    Entry,
    Model,
    connect,
    create,
    database_errors,
    graph_path,
    read_entry,
    read_model,
    vector_path,
    write_settings,
)
from captioner.search.models import Models, check_model, made_by, models_of
from captioner.search.vectors import (
    LARGEST_EXACT,
    RECALL_AT,
    RECALL_QUERIES,
    ROWS,
    Approximate,
    VectorFile,
    build_graph,
    exact_rows,
    recall,
)

CLASSES = 5
"""Number of classes that are kept for each image."""
SPARE_ROWS = 1000
"""Unused vectors are dropped when there are more of them than of used ones, and more than this."""
Kind = Literal["added", "changed", "moved", "unchanged", "removed", "failed"]


class Change(NamedTuple):
    """What happened to an image of the index."""

    kind: Kind
    path: str
    error: ImageError | None = None


@dataclass(frozen=True)
class _Read:
    """A file that was read; ``inputs`` is None if an indexed image has the same bytes."""

    path: str
    size: int
    mtime_ns: int
    digest: str
    inputs: list[np.ndarray] | None = None
    """The image, prepared for the embedder."""
    prepared: Any = None
    """The image, prepared for the captioner if that is another model."""


@contextmanager
def open_writer(folder: Path, captioner: Any, rebuild: bool = False, device: str = "cpu") -> Iterator[Writer]:
    """Open the index in ``folder`` for writing, with captions by ``captioner``; it is created if there is none.

    ``rebuild`` drops its images and keeps its list of folders. Raises ``SearchIndexError`` for an index by another
    captioner, for a folder with other files, and while another process is writing.
    """
    models = models_of(captioner, device)
    model = made_by(models)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _lock(folder):
        create(folder, model)
        with closing(connect(folder)) as db, database_errors(folder):
            known, generation = read_model(db, folder)
            if rebuild:
                generation = _drop_all(db, model, generation)
            else:
                check_model(folder, known, model)
            for old in folder.iterdir():  # files of earlier generations, kept until now for readers
                stem = old.name.partition(".")[0]
                if stem.startswith(("vectors-", "graph-")) and not stem.endswith(f"-{generation}"):
                    with suppress(PermissionError):  # on Windows, while a server reads it
                        old.unlink()
            yield Writer(folder, db, model, generation, models)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the writers' lock, which the system releases when the process ends."""
    with closing(sqlite3.connect(folder / LOCK, isolation_level=None, timeout=0)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise SearchIndexError(f"{folder}: cannot be written: {error}") from error
            raise SearchIndexError(f"{folder}: another captioner index is writing it; wait until it ends") from error
        yield


def _drop_all(db: sqlite3.Connection, model: Model, generation: int) -> int:
    with _transaction(db):
        db.execute("DELETE FROM images")
        db.execute("DELETE FROM words")
        db.execute("DELETE FROM settings WHERE name = 'graph_end'")
        write_settings(db, model=json.dumps(asdict(model)), generation=str(generation + 1))
    return generation + 1


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


class Writer:
    """Changes an index; see ``open_writer``."""

    def __init__(self, folder: Path, db: sqlite3.Connection, model: Model, generation: int, models: Models) -> None:
        self.folder, self.model, self.generation, self.models = folder, model, generation, models
        self._db = db
        self._classes: ClassLayer | None = class_layer(models.embedder.runtime, models.embedder.name)
        self._file = VectorFile(vector_path(folder, generation), model.dimension)
        used: int = db.execute("SELECT coalesce(max(row), -1) + 1 FROM images").fetchone()[0]
        self._rows = max(used, len(self._file))  # the graph may hold the vectors of images that were removed
        self._waiting: list[np.ndarray] = []  # vectors that are not in the file yet
        self._digests = Counter(digest for (digest,) in db.execute("SELECT digest FROM images"))

    def __len__(self) -> int:
        """Images in the index."""
        return int(self._db.execute("SELECT count(*) FROM images").fetchone()[0])

    def folders(self) -> list[str]:
        """The folders that were indexed before."""
        return [os.fsdecode(path) for (path,) in self._db.execute("SELECT path FROM folders ORDER BY path")]

    def update(
        self, arguments: Sequence[str], stdin: Iterable[str] = (), batch_size: int = BATCH_SIZE
    ) -> Generator[Change, None, None]:
        """Index the images that ``arguments`` name, as for ``find_images``; yields what happened to each.

        Indexed images whose files are gone are removed, whatever the arguments. Changes are yielded once their batch is
        committed.
        """
        with _transaction(self._db):
            for folder in filter(os.path.isdir, arguments):
                self._db.execute("INSERT OR IGNORE INTO folders VALUES (?)", (os.fsencode(os.path.realpath(folder)),))
        known = {path: tuple(rest) for path, *rest in self._db.execute("SELECT path, size, mtime_ns FROM images")}
        pending: list[str] = []
        for path in self._named(arguments, stdin):
            if isinstance(path, ImageError):
                yield Change("failed", str(path.path), path)
            elif status(path) == known.get(os.fsencode(path), ()):
                yield Change("unchanged", path)
            else:
                pending.append(path)
        window = batch_size + min(batch_size, BATCH_SIZE)
        with closing(prefetch(self._read, pending, window)) as reads:
            for batch in batches(reads, batch_size):
                yield from self._write(batch)
        yield from self._prune()

    def forget(self, folder: str) -> int:
        """Drop a folder and its images, whether or not they still exist; returns the number of images."""
        root = os.path.realpath(folder)
        below = os.fsencode(os.path.join(root, ""))
        if os.fsencode(root) not in (path for (path,) in self._db.execute("SELECT path FROM folders")):
            raise UsageError(f"{folder} is not a folder of this index, which has {', '.join(self.folders()) or 'none'}")
        entries = [(id,) for id, path in self._db.execute("SELECT id, path FROM images") if path.startswith(below)]
        with _transaction(self._db):
            self._delete(entries)
            self._db.execute("DELETE FROM folders WHERE path = ?", (os.fsencode(root),))
        return len(entries)

    def finish(self, nearest: str = "auto", advance: Callable[[int], Any] = lambda count: None) -> float | None:
        """Drop unused vectors; build or extend the graph of neighbors if it is used, and return its recall, else None.

        ``nearest`` is ``exact``, ``usearch`` (the graph) or ``auto``: the graph for more than ``LARGEST_EXACT`` images.
        """
        rows = self._live_rows()
        if self._rows > 2 * len(rows) + SPARE_ROWS:
            rows = self._compact(rows)
        if nearest == "exact" or (nearest == "auto" and len(rows) <= LARGEST_EXACT) or not len(rows):
            with _transaction(self._db):
                self._db.execute("DELETE FROM settings WHERE name = 'graph_end'")
            return None
        path = graph_path(self.folder, self.generation)
        with atomic_path(path) as temporary:
            build_graph(path, temporary, self._file, rows, advance)
        with _transaction(self._db):
            write_settings(self._db, graph_end=str(self._rows))
        sample = rows[:: max(1, len(rows) // RECALL_QUERIES)][:RECALL_QUERIES]
        found, queries = Approximate.open(path, self._file, rows, self._rows), self._file.read(sample)
        return recall(found, exact_rows(self._file, rows, queries, RECALL_AT), queries)

    def _named(self, arguments: Sequence[str], stdin: Iterable[str]) -> Iterator[str | ImageError]:
        seen: set[str] = set()
        for found in find_images(arguments, stdin):
            if isinstance(found, ImageError):
                yield found
            elif (path := place(found)) not in seen:
                seen.add(path)
                yield path

    def _read(self, path: str) -> _Read | ImageError:
        """Read a file. Runs in a thread, so it must not use the database."""
        try:
            require_regular(path, SearchIndexError)  # reading a pipe could wait for ever
            stat = os.stat(path)
            found = _Read(path, stat.st_size, stat.st_mtime_ns, sha256(path))
        except (OSError, ValueError, SearchIndexError):  # opening the image below reports the cause
            found = None
        if found is not None and self._digests[found.digest]:
            return found
        inputs, prepared = self._prepare(path)
        if isinstance(inputs, ImageError):
            return inputs
        if found is None:
            return ImageError(path, "changed or disappeared while it was read; index it again")
        return replace(found, inputs=inputs, prepared=prepared)

    def _prepare(self, path: str) -> tuple[list[np.ndarray] | ImageError, Any]:
        """An image, prepared for the embedder and, if that is another model, for the captioner; or its error."""
        captioner, embedder = self.models
        _, inputs = embedder.prepare(path)
        _, prepared = (path, None) if captioner is embedder else captioner.prepare(path)
        return (prepared, None) if isinstance(prepared, ImageError) else (inputs, prepared)

    def _write(self, batch: Sequence[_Read | ImageError]) -> Iterator[Change]:
        changes = [Change("failed", str(one.path), one) for one in batch if isinstance(one, ImageError)]
        new: list[_Read] = []
        with _transaction(self._db):
            for read in batch:
                if isinstance(read, ImageError):
                    continue
                kind = None if read.inputs else self._reuse(read)
                if kind is not None:
                    changes.append(Change(kind, read.path))
                    continue
                inputs, prepared = (read.inputs, read.prepared) if read.inputs else self._prepare(read.path)
                if isinstance(inputs, ImageError):
                    changes.append(Change("failed", read.path, inputs))
                else:
                    new.append(replace(read, inputs=inputs, prepared=prepared))
            changes += self._caption(new)
            if self._waiting:  # on disk before the database names them
                self._file.append(self._rows - len(self._waiting), np.stack(self._waiting))
                self._waiting = []
        yield from changes

    def _reuse(self, read: _Read) -> Kind | None:
        """Reuse an indexed image with the same bytes: ``moved`` if its file is gone, else copied; None without one."""
        same = [
            read_entry(row)
            for row in self._db.execute(f"SELECT {COLUMNS} FROM images WHERE digest = ? ORDER BY id", (read.digest,))
        ]
        if not same:
            return None
        here = next((entry for entry in same if entry.path == read.path), None)
        gone = next((entry for entry in same if _is_gone(entry.path)), None)
        if here is not None:  # only the time changed
            self._set_file(here.id, read)
            return "unchanged"
        kind = self._clear(read.path)
        if gone is not None:
            self._set_file(gone.id, read)
            return "moved"
        self._insert(read, self._file.read(np.array([same[0].row]))[0], same[0])
        return kind

    def _set_file(self, id: int, read: _Read) -> None:
        values = (os.fsencode(read.path), read.size, read.mtime_ns, id)
        self._db.execute("UPDATE images SET path = ?, size = ?, mtime_ns = ? WHERE id = ?", values)

    def _caption(self, new: Sequence[_Read]) -> Iterator[Change]:
        if not new:
            return
        features = self.models.embedder.encode([read.inputs for read in new if read.inputs])  # (N, D)
        captions = self._describe(new, features)
        classes = self._classes.best(features, CLASSES) if self._classes else [()] * len(new)
        norms = np.linalg.norm(features, axis=1)
        vectors = features / np.maximum(norms, 1e-12)[:, None]
        for read, vector, norm, found, shares in zip(new, vectors, norms, captions, classes, strict=True):
            if isinstance(found, ImageError):
                yield Change("failed", read.path, ImageError(read.path, found.reason))
                continue
            kind, best = self._clear(read.path), found[0]
            entry = Entry(0, "", "", 0, 0, 0, float(norm), best.text, best.log_prob, tuple(map(tuple, shares)))  # type: ignore[arg-type]
            self._insert(read, vector, entry)
            yield Change(kind, read.path)

    def _describe(self, new: Sequence[_Read], features: np.ndarray) -> Iterable[tuple[Caption, ...] | ImageError]:
        """The captions of images, given the embedder's features (N, D)."""
        captioner, embedder = self.models
        if captioner is embedder:
            return embedder.decode(features, embedder.checkpoint.decoding)
        captioner.load_networks()
        config = captioner.decoding_config({})
        some = batches([read.prepared for read in new], captioner.batch_size)
        return [found for batch in some for found in captioner.describe(batch, config)]

    def _insert(self, read: _Read, vector: np.ndarray, entry: Entry) -> None:
        """Add an image with the captions and classes of ``entry``."""
        self._waiting.append(vector)
        names = ", ".join(name for name, _ in entry.classes)
        values = (os.fsencode(read.path), read.digest, read.size, read.mtime_ns, self._rows, entry.norm, entry.caption)
        marks = ", ".join("?" * (len(values) + 2))
        columns = COLUMNS.removeprefix("id, ")
        sql = f"INSERT INTO images ({columns}) VALUES ({marks})"
        id = self._db.execute(sql, (*values, entry.log_prob, json.dumps(entry.classes))).lastrowid
        self._db.execute("INSERT INTO words (rowid, caption, classes) VALUES (?, ?, ?)", (id, entry.caption, names))
        self._rows += 1
        self._digests[read.digest] += 1

    def _clear(self, path: str) -> Kind:
        """Remove the image indexed at a path; returns ``changed`` if there was one, else ``added``."""
        old = self._db.execute("SELECT id FROM images WHERE path = ?", (os.fsencode(path),)).fetchall()
        self._delete(old)
        return "changed" if old else "added"

    def _delete(self, ids: Sequence[Any]) -> None:
        for id in ids:
            (digest,) = self._db.execute("SELECT digest FROM images WHERE id = ?", id).fetchone()
            self._digests[digest] -= 1
        self._db.executemany("DELETE FROM images WHERE id = ?", ids)
        self._db.executemany("DELETE FROM words WHERE rowid = ?", ids)

    def _prune(self) -> Iterator[Change]:
        """Remove images whose files are gone; if their whole folder is missing they stay, as its disk may come back."""
        away = [folder for folder in self.folders() if not _has_files(folder)]
        gone = [
            (id, path)
            for id, path in ((id, os.fsdecode(path)) for id, path in self._db.execute("SELECT id, path FROM images"))
            if _is_gone(path)
        ]
        kept = [(id, path) for id, path in gone if any(path.startswith(os.path.join(one, "")) for one in away)]
        for folder in away:
            count = sum(path.startswith(os.path.join(folder, "")) for _, path in kept)
            if count:
                warn(f"{folder} is empty or missing; its {count} images stay; captioner index --forget removes them")
        removed = sorted(set(gone) - set(kept))
        with _transaction(self._db):
            self._delete([(id,) for id, _ in removed])
        yield from (Change("removed", path) for _, path in removed)

    def _live_rows(self) -> np.ndarray:
        return np.array([row for (row,) in self._db.execute("SELECT row FROM images ORDER BY row")], np.int64)

    def _compact(self, rows: np.ndarray) -> np.ndarray:
        """Write the vectors of ``rows`` to a file of the next generation; returns their new rows."""
        generation = self.generation + 1
        file = VectorFile(vector_path(self.folder, generation), self.model.dimension)
        for first in range(0, len(rows), ROWS):
            file.append(first, self._file.read(rows[first : first + ROWS]))
        with _transaction(self._db):
            self._db.executemany(
                "UPDATE images SET row = ? WHERE row = ?", [(-1 - new, int(old)) for new, old in enumerate(rows)]
            )
            self._db.execute("UPDATE images SET row = -1 - row")
            self._db.execute("DELETE FROM settings WHERE name = 'graph_end'")
            write_settings(self._db, generation=str(generation))
        self.generation, self._file, self._rows = generation, file, len(rows)
        return np.arange(len(rows))


def status(path: str) -> tuple[int, int] | None:
    """Size and modification time (ns) of a file; None if it does not exist."""
    with suppress(OSError, ValueError):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    return None


def _is_gone(path: str) -> bool:
    """Whether a file does not exist; files in a folder that cannot be read are not gone."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _has_files(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
