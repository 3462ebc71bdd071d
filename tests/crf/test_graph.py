"""Loops, schedules and the Chow-Liu tree."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.crf.graph import (
    Edge,
    all_pairs,
    choose_edges,
    depth_first,
    has_loops,
    mutual_information,
    spanning_forest,
    two_pass_schedule,
)

EDGES = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        st.just(count), st.lists(st.sampled_from(all_pairs(count)), unique=True) if count > 1 else st.just([])
    )
)
"""Number of nodes and edges of a graph."""


def components(count: int, edges: list[Edge]) -> int:
    """Number of connected components, by merging sets."""
    groups = [{node} for node in range(count)]
    for v, w in edges:
        one, other = (next(group for group in groups if node in group) for node in (v, w))
        if one is not other:
            groups.remove(other)
            one |= other
    return len(groups)


@given(EDGES)
def test_loops_are_edges_beyond_a_forest(graph: tuple[int, list[Edge]]) -> None:
    """A graph is a forest if and only if it has as many edges as nodes, less one for each component."""
    count, edges = graph
    assert has_loops(edges) == (len(edges) > count - components(count, edges))
    forest = spanning_forest(edges)
    assert not has_loops(forest) and components(count, forest) == components(count, edges)
    assert has_loops(edges, chain=True) == bool(edges)


@given(EDGES)
def test_each_message_is_sent_after_those_it_depends_on(graph: tuple[int, list[Edge]]) -> None:
    """Would catch a schedule that needs a second round on a forest, or that leaves a message out."""
    count, edges = graph[0], spanning_forest(graph[1])
    assert sorted(depth_first(count, edges)) == list(range(count))
    sent: set[Edge] = set()
    for v, receivers in two_pass_schedule(count, edges):
        for w in receivers:
            needed = {(u, v) for u in range(count) if u != w and ((u, v) in edges or (v, u) in edges)}
            assert needed <= sent and (v, w) not in sent
            sent.add((v, w))
    assert len(sent) == 2 * len(edges)


def test_the_tree_joins_what_tells_most_of_each_other() -> None:
    """Would catch a tree with a loop, or of the least information."""
    random = np.random.default_rng(0)
    one, two = random.integers(0, 4, 500), random.integers(0, 4, 500)
    noisy = np.where(random.random(500) < 0.8, one, random.integers(0, 4, 500))
    truth = np.stack([two, one, noisy, (one + two) % 4, two // 2], 1)
    labels = {str(v): tuple("abcd") for v in range(5)}
    edges = choose_edges("tree", truth, labels)
    assert len(edges) == 4 and not has_loops(edges) and {(1, 2), (0, 4)} <= set(edges)
    assert mutual_information(one, one, 4, 4) == pytest.approx(np.log(4), abs=0.02)
    assert mutual_information(one, two, 4, 4) < 0.03
    assert choose_edges("none", truth, labels) == []


def test_the_tree_has_the_most_information_of_all_trees() -> None:
    """The Chow-Liu tree against enumeration of all spanning trees."""
    random = np.random.default_rng(3)
    base = random.integers(0, 3, 300)
    labels = np.stack(
        [np.where(random.random(300) < share, base, random.integers(0, 3, 300)) for share in (1, 0.3, 0.6, 0.8)], 1
    )
    labels[random.random(labels.shape) < 0.1] = -1
    sets = {str(v): tuple("abc") for v in range(4)}

    def information(edges: tuple[Edge, ...] | list[Edge]) -> float:
        return sum(mutual_information(labels[:, v], labels[:, w], 3, 3) for v, w in edges)

    trees = [edges for edges in itertools.combinations(all_pairs(4), 3) if not has_loops(edges)]
    assert len(trees) == 16
    assert math.isclose(information(choose_edges("tree", labels, sets)), max(map(information, trees)))
    assert choose_edges("complete", labels, sets) == all_pairs(4)
