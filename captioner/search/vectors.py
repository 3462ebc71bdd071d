"""Unit vectors on disk, and the nearest of them: by a product with all, or by a graph of neighbors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from captioner.errors import SearchIndexError
from captioner.optional import require

INDEXES = {"exact": "captioner.search.vectors:Exact", "usearch": "captioner.search.vectors:Approximate"}
"""Ways to find the nearest vectors, by name."""
LARGEST_EXACT = 200_000
"""Vectors up to which a product with all of them is quick enough, and fits the memory."""
BYTES = 2
"""Of a number on disk, float16."""
ROWS = 8192
"""Vectors that are converted at a time."""
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 32, 128, 128
"""Neighbors of a vector in the graph, and how many candidates are kept while it is built and searched."""
RECALL_QUERIES, RECALL_AT = 100, 10


class Nearest(Protocol):
    """Finds vectors that point where a query points."""

    def search(self, query: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """A unit vector (D,) to the rows (K,) of the ``top`` nearest and their cosines (K,), best first."""
        ...


class VectorFile:
    """Rows of float16, (N, D), that are only ever appended: what a reader has opened does not change under it."""

    def __init__(self, path: Path, dimension: int) -> None:
        self.path, self.dimension = path, dimension

    def append(self, rows: int, vectors: np.ndarray) -> None:
        """Write ``vectors`` (M, D) behind the first ``rows``; whatever a killed run left there is overwritten."""
        content = np.ascontiguousarray(vectors, "<f2").tobytes()
        with open(self.path, "ab") as stream:
            stream.truncate(rows * self.dimension * BYTES)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The vectors (M, D) float32 of ``rows`` (M,); raises ``SearchIndexError`` where the file is too short."""
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
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < rows * self.dimension * BYTES:
            raise SearchIndexError(f"{self.path}: is cut off or missing; index the images again (--rebuild)")
        return np.memmap(self.path, "<f2", "r", shape=(rows, self.dimension))


class Exact:
    """The product of the query with all vectors, held in memory as float32: numpy has no fast one of float16."""

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
    """usearch's graph of neighbors, memory-mapped; keys are rows. Those that came later are compared one by one."""

    def __init__(self, graph: Any, rows: np.ndarray, later: Exact) -> None:
        """A usearch index, the rows (N,), ascending, of it that still belong to images, and the vectors beside it."""
        self.graph, self.rows, self.later = graph, rows, later

    @classmethod
    def open(cls, path: Path, file: VectorFile, rows: np.ndarray, end: int) -> Approximate:
        """The graph in a file that ``build_graph`` wrote of rows below ``end``; ``rows`` (N,) are all of the index."""
        graph = _restore(path, view=True)
        if graph.ndim != file.dimension:
            raise SearchIndexError(f"{path}: is of other vectors; index the images again (--rebuild)")
        later = rows[rows >= end]
        return cls(graph, rows[rows < end], Exact(file.read(later), later))

    def search(self, query: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = self._search_graph(query, min(top, len(self.rows)))
        more_rows, more_scores = self.later.search(query, top)
        rows, scores = np.concatenate([rows, more_rows]), np.concatenate([scores, more_scores])
        best = np.lexsort((rows, -scores))[:top]
        return rows[best], scores[best]

    def _search_graph(self, query: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        wanted = top
        while wanted:
            found = self.graph.search(query, wanted)
            rows, scores = found.keys.astype(np.int64), 1 - found.distances
            places = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
            alive = self.rows[places] == rows
            if alive.sum() >= top or wanted >= len(self.graph):
                return rows[alive][:top], scores[alive][:top]
            wanted = min(4 * wanted, len(self.graph))  # rows of images that are gone took the places
        return np.empty(0, np.int64), np.empty(0, np.float32)


def build_graph(path: Path, temporary: Path, file: VectorFile, rows: np.ndarray, advance: Callable[[int], Any]) -> None:
    """Write the graph of ``rows`` (N,), ascending, to ``temporary``; what is in the one at ``path`` is kept."""
    usearch = require("usearch.index", "search")
    graph = _restore(path) if path.is_file() else None
    if graph is None:
        graph = usearch.Index(
            ndim=file.dimension,
            metric="cos",
            dtype="f16",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )
    new = rows[~graph.contains(rows)] if len(graph) else rows
    for first in range(0, len(new), ROWS):
        some = new[first : first + ROWS]
        graph.add(some, file.read(some))
        advance(len(some))
    graph.save(str(temporary))


def _restore(path: Path, view: bool = False) -> Any:
    """The graph in a file; with ``view`` it stays there."""
    usearch = require("usearch.index", "search")
    try:
        return usearch.Index.restore(str(path), view=view)
    except (RuntimeError, ValueError) as error:
        raise SearchIndexError(f"{path}: is damaged ({error}); index the images again (--rebuild)") from error


def recall(found: Nearest, exact: Nearest, queries: np.ndarray, at: int = RECALL_AT) -> float:
    """The share of the ``at`` nearest by ``exact`` that ``found`` finds too, over queries (Q, D)."""
    hits = [len(np.intersect1d(found.search(q, at)[0], exact.search(q, at)[0])) for q in queries]
    return sum(hits) / (at * len(hits))
