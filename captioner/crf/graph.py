"""Graphs over the nodes of a clip: edges, loops, message schedules, and the Chow-Liu tree.

Reference: Chow and Liu (1968), Approximating discrete probability distributions with dependence trees.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

Edge = tuple[int, int]
"""Two nodes, the lower index first."""
GRAPHS = ("complete", "tree", "none")
SMOOTHING = 0.5
"""Smoothing: added to the count of each label, and spread over the label pairs of two nodes."""


def all_pairs(num_nodes: int) -> list[Edge]:
    """Edges of the complete graph."""
    return list(itertools.combinations(range(num_nodes), 2))


def neighbors(edges: Iterable[Edge], node: int) -> list[int]:
    """Nodes that share an edge with ``node``, in ascending order."""
    return sorted(v + w - node for v, w in edges if node in (v, w))


def has_loops(edges: Iterable[Edge], chain: bool = False) -> bool:
    """Whether the graph has a loop.

    With ``chain`` the graph is repeated for each clip of a video, and each node is joined to itself in the next clip.
    """
    edges = list(edges)
    if chain:
        return bool(edges)
    return len(spanning_forest(edges)) < len(edges)


def spanning_forest(edges: Iterable[Edge]) -> list[Edge]:
    """Kruskal's algorithm: each edge in the given order, unless it would close a loop."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while node in parent:
            node = parent[node]
        return node

    kept = []
    for v, w in edges:
        one, other = root(v), root(w)
        if one != other:
            parent[one] = other
            kept.append((v, w))
    return kept


def depth_first(num_nodes: int, edges: Collection[Edge]) -> Iterator[int]:
    """All nodes in depth-first order: each but the first of its component comes after one of its neighbors."""
    visited: set[int] = set()
    for start in range(num_nodes):
        stack = [start]
        while stack:
            node = stack.pop()
            if node not in visited:
                visited.add(node)
                yield node
                stack += neighbors(edges, node)


def two_pass_schedule(num_nodes: int, edges: Collection[Edge]) -> list[tuple[int, list[int]]]:
    """Message order on a forest, leaves to root and back: each sender with its receivers."""
    order = list(depth_first(num_nodes, edges))
    rank = {node: place for place, node in enumerate(order)}
    upward = [(v, [w for w in neighbors(edges, v) if rank[w] < rank[v]]) for v in reversed(order)]
    downward = [(v, [w for w in neighbors(edges, v) if rank[w] > rank[v]]) for v in order]
    return upward + downward


def choose_edges(graph: str, labels: np.ndarray, label_sets: Mapping[str, Sequence[str]]) -> list[Edge]:
    """Edges of one of ``GRAPHS``; ``tree`` is the Chow-Liu tree of ``labels``, (N, V) int64, -1 where unknown."""
    pairs = all_pairs(len(label_sets))
    if graph != "tree":
        return pairs if graph == "complete" else []
    sizes = [len(values) for values in label_sets.values()]
    information = {
        (v, w): mutual_information(labels[:, v], labels[:, w], sizes[v], sizes[w]) for v, w in pairs
    }  # fmt: skip
    return sorted(spanning_forest(sorted(pairs, key=lambda edge: -information[edge])))


def mutual_information(one: np.ndarray, other: np.ndarray, size: int, other_size: int) -> float:
    """Mutual information of two label sequences (N,), in nats.

    Rows in which either is unknown (-1) are ignored; counts are smoothed by ``SMOOTHING``.
    """
    known = (one >= 0) & (other >= 0)
    counts = np.full((size, other_size), SMOOTHING / (size * other_size))
    np.add.at(counts, (one[known], other[known]), 1)
    joint = counts / counts.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((joint * np.log(joint / independent)).sum())
