"""Nearest vectors: exact against a sort, approximate against exact, and the file they are in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from captioner.errors import SearchIndexError
from captioner.registry import resolve
from captioner.search import vectors as search_vectors
from captioner.search.vectors import (
    INDEXES,
    Approximate,
    Exact,
    VectorFile,
    axes_path,
    build_graph,
    exact_rows,
    recall,
)


def unit_vectors(count: int, dimension: int = 32) -> np.ndarray:
    """Clustered unit vectors, as features of images are."""
    rng = np.random.default_rng(0)
    found = rng.random((20, dimension))[rng.integers(0, 20, count)] + 0.2 * rng.standard_normal((count, dimension))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def build(folder: Path, file: VectorFile, rows: np.ndarray) -> Approximate:
    build_graph(folder / "graph", folder / "new", file, rows, lambda count: None)
    (folder / "new").rename(folder / "graph")
    return Approximate.open(folder / "graph", file, rows, int(rows[-1]) + 1)


def test_every_way_is_there() -> None:
    """Would catch a name that leads nowhere."""
    assert [resolve(INDEXES, name, "index") for name in INDEXES] == [Exact, Approximate]


def test_exact_search_is_a_sort() -> None:
    """Would catch a partition that is not sorted, and rows that are mistaken for places."""
    vectors, rows = unit_vectors(300), np.arange(300) * 3 + 1
    found, scores = Exact(vectors, rows).search(vectors[7], 10)
    wanted = np.argsort(-(vectors @ vectors[7]), kind="stable")[:10]
    assert found.tolist() == rows[wanted].tolist() and found[0] == 22
    np.testing.assert_allclose(scores, (vectors @ vectors[7])[wanted])
    assert len(Exact(vectors, rows).search(vectors[7], 1000)[0]) == 300
    assert len(Exact(vectors[:0], rows[:0]).search(vectors[7], 5)[0]) == 0


def test_a_file_keeps_rows_and_overwrites_what_a_kill_left(tmp_path: Path) -> None:
    """Would catch rows that shift after a run that died between the file and the database."""
    vectors, file = unit_vectors(10), VectorFile(tmp_path / "v", 32)
    file.append(0, vectors[:4])
    file.append(4, vectors[4:9])
    file.append(6, vectors[9:])
    np.testing.assert_allclose(file.read(np.array([6, 0])), vectors[[9, 0]], atol=1e-3)
    assert (tmp_path / "v").stat().st_size == 7 * 32 * 2
    with pytest.raises(SearchIndexError, match="cut off"):
        file.read(np.array([7]))
    file.append(0, np.full((1, 32), np.nan))
    with pytest.raises(SearchIndexError, match="not finite"):
        file.read(np.array([0]))


def test_the_graph_finds_what_exact_search_finds(tmp_path: Path) -> None:
    """Would catch distances instead of cosines, images that are gone, and a graph that does not grow."""
    pytest.importorskip("usearch")
    vectors, file = unit_vectors(3000), VectorFile(tmp_path / "v", 32)
    file.append(0, vectors)
    graph = build(tmp_path, file, np.arange(2000))
    assert len(graph.graph) == 2000
    rows = np.flatnonzero(np.arange(3000) % 10)  # every tenth image is gone again
    graph = build(tmp_path, file, rows[:-200])
    graph = Approximate.open(tmp_path / "graph", file, rows, int(rows[-200]))
    assert len(graph.later.rows) == 200
    exact, queries = Exact(file.read(rows), rows), vectors[::30]
    nearest = exact_rows(file, rows, queries, 10)
    assert nearest.tolist() == [exact.search(query, 10)[0].tolist() for query in queries]
    assert recall(graph, nearest, queries) > 0.95
    assert recall(exact, nearest, queries) == 1.0 and recall(Exact(exact.vectors[:9], rows[:9]), nearest, queries) < 0.1
    for query in vectors[::100]:
        found, scores = graph.search(query, 20)
        _, cosines = exact.search(query, 20)
        assert len(found) == 20 and not (found % 10 == 0).any()
        np.testing.assert_allclose(scores[0], cosines[0], atol=1e-6)
    (tmp_path / "graph").write_bytes(b"no graph")
    with pytest.raises(SearchIndexError, match="is damaged"):
        Approximate.open(tmp_path / "graph", file, rows, 3000)


def test_a_graph_of_components_finds_whole_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch cosines of components in place of vectors' own, and axes that differ from run to run."""
    pytest.importorskip("usearch")
    monkeypatch.setattr(search_vectors, "COMPONENTS", 20)
    vectors, file = unit_vectors(2000), VectorFile(tmp_path / "v", 32)
    file.append(0, vectors)
    build(tmp_path, file, np.arange(1000))
    before = axes_path(tmp_path / "graph").read_bytes()
    graph, exact = build(tmp_path, file, np.arange(2000)), Exact(file.read(np.arange(2000)), np.arange(2000))
    assert graph.graph.ndim == 20 and axes_path(tmp_path / "graph").read_bytes() == before
    queries = vectors[::20]
    assert recall(graph, exact_rows(file, np.arange(2000), queries, 5), queries) > 0.9
    for query in queries[::10]:
        found, scores = graph.search(query, 5)
        np.testing.assert_allclose(scores, exact.vectors[found] @ query, atol=1e-6)
    axes_path(tmp_path / "graph").write_bytes(before[:-40])
    with pytest.raises(SearchIndexError, match="damaged"):
        Approximate.open(tmp_path / "graph", file, np.arange(2000), 2000)
    np.save(axes_path(tmp_path / "graph"), np.eye(31, 20, dtype=np.float32))
    with pytest.raises(SearchIndexError, match="other vectors"):
        Approximate.open(tmp_path / "graph", file, np.arange(2000), 2000)
