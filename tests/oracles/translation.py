"""Phrase-based translation by trying everything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, permutations, product
from typing import Any

import numpy as np


def every_translation(
    source: Sequence[str], table: Any, log_prob: Any
) -> Iterator[tuple[tuple[str, ...], list[float]]]:
    """Words and features of every way to cut ``source``, order its phrases and choose an option for each.

    ``log_prob(words)`` is the language model's of a whole sentence, the end included.
    """
    size = len(source)
    for parts in range(1, size + 1):
        for cuts in combinations(range(1, size), parts - 1):
            borders = [0, *cuts, size]
            spans = list(pairwise(borders))
            for order in permutations(spans):
                for options in product(*(table.get(tuple(source[a:b]), []) for a, b in order)):
                    words = tuple(word for option in options for word in option.target)
                    known = [sum(option.features[k] for option in options) for k in range(4)]
                    ends = [0, *(b for _, b in order)]
                    jumps = sum(abs(a - end) for (a, _), end in zip(order, ends, strict=False))
                    yield words, [*known, log_prob(words), len(words), parts, -jumps]


def best_translations(source: Sequence[str], table: Any, log_prob: Any, weights: np.ndarray) -> list[tuple[float, Any]]:
    """(score, words) of all different sentences, each with its best way, the best first."""
    scores: dict[tuple[str, ...], float] = {}
    for words, features in every_translation(source, table, log_prob):
        scores[words] = max(scores.get(words, -math.inf), float(np.dot(features, weights)))
    return sorted(((score, words) for words, score in scores.items()), key=lambda one: -one[0])
