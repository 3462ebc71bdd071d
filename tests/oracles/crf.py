"""Inference in pairwise MRFs by plain loops: enumeration of all assignments, and message by message."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Row = Sequence[float]
Table = Sequence[Row]


def assignments(sizes: Sequence[int], clips: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All joint assignments of a video: for each clip one label a node."""
    one = list(itertools.product(*map(range, sizes)))
    return itertools.product(one, repeat=clips)


def score(
    video: Sequence[Sequence[int]],
    unary: Sequence[Table],
    pairwise: Mapping[tuple[int, int], Table],
    transition: Sequence[Table] = (),
) -> float:
    """Sum of log potentials of one assignment; ``unary`` is [node][clip][label], the others are tables."""
    total = 0.0
    for clip, labels in enumerate(video):
        for node, label in enumerate(labels):
            total += unary[node][clip][label]
            if transition and clip:
                total += transition[node][video[clip - 1][node]][label]
        for (node, other), table in pairwise.items():
            total += table[labels[node]][labels[other]]
    return total


def enumerate_video(
    unary: Sequence[Table], pairwise: Mapping[tuple[int, int], Table], transition: Sequence[Table] = ()
) -> tuple[float, list[list[list[float]]], tuple[tuple[int, ...], ...]]:
    """Log partition function, marginals [node][clip][label], and the MAP assignment of one video."""
    clips, sizes = len(unary[0]), [len(table[0]) for table in unary]
    scored = [(score(video, unary, pairwise, transition), video) for video in assignments(sizes, clips)]
    top, best = max(scored)
    mass = [[[0.0] * size for _ in range(clips)] for size in sizes]
    for value, video in scored:
        for clip, labels in enumerate(video):
            for node, label in enumerate(labels):
                mass[node][clip][label] += math.exp(value - top)
    total = sum(math.exp(value - top) for value, _ in scored)
    probabilities = [[[one / total for one in row] for row in node] for node in mass]
    return top + math.log(total), probabilities, best


def propagate(
    unary: Sequence[np.ndarray],
    pairwise: Mapping[tuple[int, int], np.ndarray],
    *,
    maximum: bool,
    rounds: int = 100,
    tolerance: float = 1e-4,
) -> list[np.ndarray]:
    """Normalized log beliefs of one clip's nodes by belief propagation, a message at a time until none changes.

    ``unary`` (L_v,) for each node; exact without loops.
    """
    tables = dict(pairwise) | {(w, v): table.T for (v, w), table in pairwise.items()}
    messages = {(v, w): np.zeros(len(unary[w])) for v, w in tables}

    def belief(node: int, without: int = -1) -> np.ndarray:
        return unary[node] + sum(m for (v, w), m in messages.items() if w == node and v != without)

    for _ in range(rounds):
        change = 0.0
        for v, w in messages:
            pairs = belief(v, without=w)[:, None] + tables[v, w]
            new = pairs.max(0) if maximum else log_sum(pairs)
            new = new - new.max()
            change = max(change, float(np.abs(new - messages[v, w]).max()))
            messages[v, w] = new
        if change <= tolerance:
            break
    return [belief(node) - log_sum(belief(node)) for node in range(len(unary))]


def log_sum(values: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials over the first axis."""
    top = values.max(0)
    return np.asarray(top + np.log(np.exp(values - top).sum(0)))
