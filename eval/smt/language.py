"""An n-gram language model that is asked for one word at a time, as a decoder of phrases asks.

Interpolated Kneser-Ney with three discounts an order, "modified" by Chen and Goodman 1999. ``nltk.lm`` has none of it
at this speed, and ``eval.ngram`` answers with the whole vocabulary at once, which is what a beam over words wants and
what a decoder of phrases would throw away.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from eval.ngram import continuation_counts

Words = tuple[str, ...]
START, END = "<s>", "</s>"


class LanguageModel:
    """Log probabilities of words after a state: the end of the words so far that the model can tell from others.

    Every n-gram seen in training has its interpolated probability ready, every history its weight for what was never
    seen after it. A state is the longest end of the text that is such a history, so that equal states continue equally.
    """

    def __init__(self, sentences: Iterable[Sequence[str]], order: int = 4) -> None:
        counts = continuation_counts(sentences, order, START, END)
        self.order = order
        self._unseen = -math.log(len(counts[0]) + 1)  # words, the end, and one share for all unknown words
        self._log: dict[Words, float] = {}
        self._back: dict[Words, float] = {}
        for table in counts:
            self._add(table)
        self.start = self._shorten((START,) * (order - 1))

    @property
    def words(self) -> set[str]:
        """Every word of training, and the end."""
        return {ngram[0] for ngram in self._log if len(ngram) == 1}

    def step(self, state: Words, word: str) -> tuple[float, Words]:
        """Natural log probability of ``word`` (or ``END``) after ``state``, and the state behind it."""
        return self._log_prob(state, word), self._shorten((*state, word)[1 - self.order :] if self.order > 1 else ())

    def phrase(self, state: Words, words: Words) -> tuple[float, Words]:
        """The sum over ``words``, and the state behind the last."""
        total = 0.0
        for word in words:
            log_prob, state = self.step(state, word)
            total += log_prob
        return total, state

    def _log_prob(self, history: Words, word: str) -> float:
        back = 0.0
        while True:
            found = self._log.get((*history, word))
            if found is not None:
                return back + found
            back += self._back.get(history, 0.0)
            if not history:
                return back + self._unseen
            history = history[1:]

    def _shorten(self, history: Words) -> Words:
        while history and history not in self._back:
            history = history[1:]
        return history

    def _add(self, counts: Counter[Words]) -> None:
        """One order's n-grams, when those of all lower orders are there."""
        discounts = _discounts(counts)
        total: Counter[Words] = Counter()
        taken: defaultdict[Words, float] = defaultdict(float)
        for ngram, count in counts.items():
            total[ngram[:-1]] += count
            taken[ngram[:-1]] += discounts[min(count, 3)]
        found = {}
        for ngram, count in counts.items():
            history, word = ngram[:-1], ngram[-1]
            below = self._log_prob(history[1:], word) if history else self._unseen
            share = count - discounts[min(count, 3)] + taken[history] * math.exp(below)
            found[ngram] = math.log(share / total[history])
        self._log |= found
        self._back |= {history: math.log(mass / total[history]) for history, mass in taken.items()}


def _discounts(counts: Counter[Words]) -> tuple[float, ...]:
    """What is taken from counts of 0, 1, 2, and 3 or more (Chen and Goodman 1999, eq. 26)."""
    seen = Counter(counts.values())
    base = seen[1] / (seen[1] + 2 * seen[2]) if seen[1] else 0.5
    found = [0.0]
    for count in (1, 2, 3):
        best = count - (count + 1) * base * seen[count + 1] / seen[count] if seen[count] else base
        found.append(min(max(best, 0.1), count - 0.1))  # too little text can give anything
    return tuple(found)
