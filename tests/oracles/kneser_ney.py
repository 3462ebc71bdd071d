"""Interpolated Kneser-Ney by its definition: every count is made anew from the n-grams of the sentences."""

from __future__ import annotations

from collections.abc import Sequence

from captioner.text.vocabulary import END, START


def probability(sentences: Sequence[Sequence[int]], word: int, history: Sequence[int], words: int, order: int) -> float:
    """Of ``word`` after ``history``; ``words`` is the size of the vocabulary, padding and start included."""
    padded = [[START] * (order - 1) + [*sentence, END] for sentence in sentences]
    occurrences = [tuple(line[i : i + order]) for line in padded for i in range(len(line) - order + 1)]
    context = ([START] * (order - 1) + list(history))[-(order - 1) :] if order > 1 else []
    return _mixed(occurrences, word, tuple(context), words, order)


def _mixed(occurrences: list[tuple[int, ...]], word: int, context: tuple[int, ...], words: int, order: int) -> float:
    counts: dict[tuple[int, ...], int] = {}
    length = len(context) + 1
    if length == order:
        for ngram in occurrences:
            counts[ngram] = counts.get(ngram, 0) + 1
    else:  # how many different n-grams of one word more end in this one
        for longer in {ngram[order - length - 1 :] for ngram in occurrences}:
            counts[longer[1:]] = counts.get(longer[1:], 0) + 1
    once = sum(count == 1 for count in counts.values())
    twice = sum(count == 2 for count in counts.values())
    discount = once / (once + 2 * twice) if once else 0.0
    shorter = _mixed(occurrences, word, context[1:], words, order) if context else 1 / (words - 2)
    followers = {ngram: count for ngram, count in counts.items() if ngram[:-1] == context}
    total = sum(followers.values())
    if not total:
        return shorter
    own = followers.get((*context, word), 0)
    return max(own - discount, 0) / total + discount * len(followers) / total * shorter
