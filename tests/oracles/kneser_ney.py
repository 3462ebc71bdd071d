"""Interpolated Kneser-Ney with three discounts, straight from its recursion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

END = "</s>"


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
