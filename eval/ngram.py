"""An n-gram language model of captions, which never sees an image: interpolated Kneser-Ney (Kneser and Ney 1995).

It is a decoder as ``captioner.decoding`` wants one, so that the same beams and draws search it as search the models.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from captioner.text.vocabulary import END, PAD, START, UNK

History = tuple[int, ...]
T = TypeVar("T")


class KneserNey:
    """Probability of the next word after the ``order - 1`` words before it.

    A history's discounted counts are mixed with those of the history that is one word shorter, down to single words and
    the uniform distribution. Below the highest order a word counts once for each word that it follows, not as often as
    it occurs. Each order's discount is n1 / (n1 + 2 n2), from how many n-grams occur once and twice (Ney et al. 1994).
    """

    def __init__(self, sentences: Iterable[Sequence[int]], words: int, order: int = 3) -> None:
        """``sentences`` as numbers below ``words``, without start and end, which are added."""
        self.order = order
        self.words = words
        self._tables = [_Table(counts) for counts in continuation_counts(sentences, order, START, END)]

    def probabilities(self, history: History) -> np.ndarray:
        """(words,) probabilities of what follows ``history``, which may be of any length; they sum to 1."""
        history = (START,) * (self.order - 1) + tuple(history)
        found = np.full(self.words, 1 / (self.words - 2))  # what can follow: all but padding and the start
        found[[PAD, START]] = 0.0
        for length, table in enumerate(self._tables):
            found = table.mix(history[len(history) - length :], found)
        return found

    def step(self, tokens: Tensor, state: list[History]) -> tuple[Tensor, list[History]]:
        """As ``Decoder`` says. A state holds the words so far; unknown words are never said."""
        state = [(*history, int(token)) for history, token in zip(state, tokens, strict=True)]
        with np.errstate(divide="ignore"):
            log_probs = np.log(np.stack([self.probabilities(history) for history in state]))
        log_probs[:, UNK] = -np.inf
        return torch.from_numpy(log_probs).float(), state

    def select(self, state: list[History], rows: Tensor) -> list[History]:
        return [state[row] for row in rows.tolist()]


class _Table:
    """The n-grams of one length, by their history."""

    def __init__(self, counts: Counter[History]) -> None:
        of_counts = Counter(counts.values())
        once, twice = of_counts[1], of_counts[2]
        self.discount = once / (once + 2 * twice) if once else 0.0
        following: dict[History, list[tuple[int, int]]] = defaultdict(list)
        for ngram, count in counts.items():
            following[ngram[:-1]].append((ngram[-1], count))
        self._following = {history: np.array(pairs, np.int64).T for history, pairs in following.items()}

    def mix(self, history: History, shorter: np.ndarray) -> np.ndarray:
        """(V,) probabilities after ``history``, given those after the history one word ``shorter``."""
        if history not in self._following:
            return shorter
        words, counts = self._following[history]
        total = counts.sum()
        mixed = shorter * (self.discount * len(words) / total)
        mixed[words] += (counts - self.discount) / total
        return mixed


def continuation_counts(sentences: Iterable[Sequence[T]], order: int, start: T, end: T) -> list[Counter[tuple[T, ...]]]:
    """N-gram counts of each length from 1 to ``order``: as they occur for the longest, by what they follow below."""
    longest: Counter[tuple[T, ...]] = Counter()
    for sentence in sentences:
        padded = (start,) * (order - 1) + (*sentence, end)
        longest.update(zip(*(padded[i:] for i in range(order)), strict=False))
    counts = [longest]
    for _ in range(order - 1):
        counts.append(Counter(ngram[1:] for ngram in counts[-1]))
    return counts[::-1]
