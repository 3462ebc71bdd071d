"""Phrase-based translation by trying everything, and Kneser-Ney straight from its recursion."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, permutations, product
from typing import Any

import numpy as np

END = "</s>"


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


class KneserNey:
    """Interpolated Kneser-Ney with three discounts; each probability is worked out when it is asked for."""

    def __init__(self, sentences: Sequence[Sequence[str]], order: int) -> None:
        self.order = order
        texts = [["<s>"] * (order - 1) + list(sentence) + [END] for sentence in sentences]
        occurring = Counter(tuple(t[i : i + order]) for t in texts for i in range(len(t) - order + 1))
        self.counts = {order: occurring}
        for n in range(order - 1, 0, -1):  # how many different words an n-gram follows
            longer = self.counts[n + 1]
            self.counts[n] = Counter({ngram[1:]: 0 for ngram in longer})
            for ngram in longer:
                self.counts[n][ngram[1:]] += 1
        self.words = {ngram[0] for ngram in self.counts[1]}

    def probability(self, history: Sequence[str], word: str) -> float:
        """Of ``word`` after at most ``order - 1`` words."""
        padded = (["<s>"] * (self.order - 1) + list(history))[len(history) :] if self.order > 1 else []
        return self._mixed(tuple(padded), word)

    def _mixed(self, history: tuple[str, ...], word: str) -> float:
        counts = self.counts[len(history) + 1]
        below = self._mixed(history[1:], word) if history else 1 / (len(self.words) + 1)
        following = {ngram[-1]: count for ngram, count in counts.items() if ngram[:-1] == history}
        if not following:
            return below
        of = Counter(counts.values())
        y = of[1] / (of[1] + 2 * of[2]) if of[1] else 0.5
        raw = {c: c - (c + 1) * y * of[c + 1] / of[c] if of[c] else y for c in (1, 2, 3)}
        discount = {c: min(max(d, 0.1), c - 0.1) for c, d in raw.items()}
        left = sum(discount[min(count, 3)] for count in following.values())
        own = following.get(word, 0)
        kept = own - discount[min(own, 3)] if own else 0.0
        return (kept + left * below) / sum(following.values())
