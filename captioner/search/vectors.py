"""Unit vectors on disk, and nearest-neighbor search: exact, or with a graph."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from captioner.errors import SearchIndexError
from captioner.files import atomic_path
from captioner.optional import require

INDEXES = {"exact": "captioner.search.vectors:Exact", "usearch": "captioner.search.vectors:Approximate"}
"""Nearest-neighbor indexes by name."""
LARGEST_EXACT = 200_000
"""Largest number of vectors for exact search, for speed and memory."""
BYTES = 2
"""Bytes per number on disk, float16."""
ROWS = 8192
"""Vectors that are converted at a time."""
COMPONENTS = 64
"""Principal components of the vectors that the graph stores: fewer numbers make it small and fast."""
SAMPLE = 20_000
"""Most vectors from which the components are computed."""
CONNECTIVITY, EXPANSION_ADD = 16, 64
"""The graph's neighbors per vector, and the candidates kept while it is built."""
CANDIDATES, WHOLE = 800, 200
"""Candidates that the graph returns, and how many of the best are read whole and ranked by cosine."""
RECALL_QUERIES, RECALL_AT = 100, 10


class Nearest(Protocol):
    """Finds the nearest vectors of a query."""

    def search(self, query: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows (K,) of the ``top`` vectors nearest to a unit vector (D,), and their cosines (K,), best first."""
        ...


class VectorFile:
    """A file of float16 vectors (N, D) to which rows are only appended, so nothing changes for a reader."""

    def __init__(self, path: Path, dimension: int) -> None:
        self.path, self.dimension = path, dimension
        self._mapped: np.ndarray = np.empty((0, dimension), np.float16)

    def __len__(self) -> int:
        """Whole rows in the file, whether or not an image has them; 0 if there is no file."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        return size // (self.dimension * BYTES)

    def append(self, rows: int, vectors: np.ndarray) -> None:
        """Write ``vectors`` (M, D) after the first ``rows``; anything that a killed run left there is overwritten."""
        content = np.ascontiguousarray(vectors, "<f2").tobytes()
        self._mapped = np.empty((0, self.dimension), np.float16)  # reading past the file's new end would crash
        with open(self.path, "ab") as stream:
            stream.truncate(rows * self.dimension * BYTES)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The vectors (M, D) float32 of ``rows`` (M,); raises ``SearchIndexError`` if the file is short or damaged."""
        if not len(rows):
            return np.empty((0, self.dimension), np.float32)
        stored = self._map(int(rows.max()) + 1)
        found = np.empty((len(rows), self.dimension), np.float32)
        for first in range(0, len(rows), ROWS):
            found[first : first + ROWS] = stored[rows[first : first + ROWS]]
        if not np.isfinite(found.sum(1)).all():
            raise SearchIndexError(f"{self.path}: holds values that are not finite; index the images again (--rebuild)")
        return found

    def _map(self, rows: int) -> np.ndarray:
        """A memory map of at least this many rows."""
        if rows <= len(known := self._mapped):
            return known
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < rows * self.dimension * BYTES:
            raise SearchIndexError(f"{self.path}: is cut off or missing; index the images again (--rebuild)")
        shape = (size // (self.dimension * BYTES), self.dimension)
        mapped: np.ndarray = np.memmap(self.path, "<f2", "r", shape=shape)
        self._mapped = mapped
        return mapped


class Exact:
    """Exact search: the product of the query with all vectors, in float32 because numpy is slow in float16."""

    def __init__(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        """Unit vectors (N, D) float32 and the row (N,) of each."""
        self.vectors, self.rows = vectors, rows

    def search(self, query: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        scores = self.vectors @ query  # (N,)
        top = min(top, len(scores))
        best = np.argpartition(-scores, top - 1)[:top] if 0 < top < len(scores) else np.arange(len(scores))[:top]
        best = best[np.lexsort((self.rows[best], -scores[best]))]
        return self.rows[best], scores[best]


class Approximate:
    """Approximate search in usearch's memory-mapped graph; vectors added after it was built are searched exactly.

    The graph holds principal components of the vectors, under their rows as keys. It gives candidates, which are then
    ranked by the cosines of the whole vectors.
    """

    def __init__(self, graph: Any, axes: np.ndarray, file: VectorFile, rows: np.ndarray, later: Exact) -> None:
        """A usearch index, the axes (D, P) of its components, and the file of all vectors.

        ``rows`` (N,), ascending, are the graph's rows that still belong to images; ``later`` holds the other rows.
        """
        self.graph, self.axes, self.file, self.rows, self.later = graph, axes, file, rows, later

    @classmethod
    def open(cls, path: Path, file: VectorFile, rows: np.ndarray, end: int) -> Approximate:
        """Open a graph that ``build_graph`` wrote of rows below ``end``; ``rows`` (N,) are all rows of the index."""
        graph, axes = _restore(path, view=True), _read_axes(axes_path(path), file.dimension)
        if graph.ndim != axes.shape[1]:
            raise SearchIndexError(f"{path}: belongs to other vectors; index the images again (--rebuild)")
        later = rows[rows >= end]
        return cls(graph, axes, file, rows[rows < end], Exact(file.read(later), later))

    def search(self, query: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._candidates(query @ self.axes, min(max(top, CANDIDATES), len(self.rows)))
        rows = np.sort(rows[: max(top, WHOLE)])  # the disk is read in order
        more_rows, more_scores = self.later.search(query, top)
        scores = np.concatenate([self.file.read(rows) @ query, more_scores])
        rows = np.concatenate([rows, more_rows])
        best = np.lexsort((rows, -scores))[:top]
        return rows[best], scores[best]

    def _candidates(self, query: np.ndarray, count: int) -> np.ndarray:
        wanted = count
        while wanted:
            rows = self.graph.search(query, wanted).keys.astype(np.int64)
            places = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
            alive: np.ndarray = rows[self.rows[places] == rows][:count]
            if len(alive) >= count or wanted >= len(self.graph):
                return alive
            wanted = min(4 * wanted, len(self.graph))  # removed images took some of the places
        return np.empty(0, np.int64)


def build_graph(path: Path, temporary: Path, file: VectorFile, rows: np.ndarray, advance: Callable[[int], Any]) -> None:
    """Write the graph of ``rows`` (N,), ascending, to ``temporary``; a graph at ``path`` is extended.

    The axes of a new graph are written to ``axes_path(path)`` first.
    """
    usearch = require("usearch.index", "search")
    if path.is_file():
        graph, axes = _restore(path), _read_axes(axes_path(path), file.dimension)
    else:
        axes = principal_axes(file.read(rows[:: -(-len(rows) // SAMPLE)]))
        with atomic_path(axes_path(path)) as new, new.open("wb") as stream:
            np.save(stream, axes)
        graph = usearch.Index(
            ndim=axes.shape[1], metric="ip", dtype="f16", connectivity=CONNECTIVITY, expansion_add=EXPANSION_ADD
        )
    missing = rows[~graph.contains(rows)] if len(graph) else rows
    for first in range(0, len(missing), ROWS):
        some = missing[first : first + ROWS]
        graph.add(some, file.read(some) @ axes)
        advance(len(some))
    graph.save(str(temporary))


def axes_path(graph: Path) -> Path:
    """The file of the axes of a graph's components."""
    return graph.with_suffix(".npy")


def principal_axes(vectors: np.ndarray) -> np.ndarray:
    """The axes (D, P) that keep most of the inner products among vectors (N, D); P is ``COMPONENTS``, or D if less."""
    _, axes = np.linalg.eigh(vectors.T @ vectors)  # by ascending eigenvalues
    return np.ascontiguousarray(axes[:, ::-1][:, :COMPONENTS], np.float32)


def _read_axes(path: Path, dimension: int) -> np.ndarray:
    try:
        axes: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SearchIndexError(f"{path}: is damaged or missing; index the images again (--rebuild)") from error
    fits = isinstance(axes, np.ndarray) and axes.dtype == np.float32 and axes.ndim == 2 and len(axes) == dimension
    if not fits or not np.isfinite(axes).all():
        raise SearchIndexError(f"{path}: belongs to other vectors; index the images again (--rebuild)")
    return axes


def _restore(path: Path, view: bool = False) -> Any:
    """Open the graph in a file; with ``view`` it is memory-mapped, not loaded."""
    usearch = require("usearch.index", "search")
    try:
        return usearch.Index.restore(str(path), view=view)
    except (RuntimeError, ValueError) as error:
        raise SearchIndexError(f"{path}: is damaged ({error}); index the images again (--rebuild)") from error


def exact_rows(file: VectorFile, rows: np.ndarray, queries: np.ndarray, top: int) -> np.ndarray:
    """The rows (Q, top) of the vectors nearest to queries (Q, D); vectors are read block by block."""
    found, scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        scores = np.concatenate([scores, queries @ file.read(some).T], 1)
        found = np.concatenate([found, np.broadcast_to(some, (len(queries), len(some)))], 1)
        best = np.argsort(-scores, 1, "stable")[:, :top]
        found, scores = np.take_along_axis(found, best, 1), np.take_along_axis(scores, best, 1)
    return found


def recall(found: Nearest, exact: np.ndarray, queries: np.ndarray) -> float:
    """The share of the exact nearest rows (Q, K) of queries (Q, D) that ``found`` finds too."""
    hits = [len(np.intersect1d(found.search(q, len(best))[0], best)) for q, best in zip(queries, exact, strict=True)]
    return sum(hits) / exact.size
