"""The phrase table: phrases of a tuple with their translations into phrases of a sentence, and probabilities.

A phrase pair is consistent with an alignment (Koehn, Och and Marcu 2003): no word in it is aligned to one outside.
Unaligned words of the sentence, such as most articles and prepositions, are part of every adjacent pair, and each pair
also exists without them: "knife" becomes "knife", "a knife" and "with a knife", and the language model chooses.

nltk's ``phrase_extraction`` finds the same pairs, as the tests check, but only without a limit on their length, which
takes ten times as long; with a limit it truncates a phrase and keeps the rest.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.smt.alignment import Alignment, Pair

Words = tuple[str, ...]
Span = tuple[int, int]
WordTable = dict[tuple[str | None, str], float]
"""Probabilities by (given word, word); the given word is ``None`` for a word without a counterpart."""


@dataclass(frozen=True)
class Option:
    """A translation of a source phrase, with the natural logs of its four probabilities."""

    target: Words
    features: tuple[float, float, float, float]
    """p(target | source) and p(source | target): both from counts of phrases, then both from the words inside."""


PhraseTable = dict[Words, list[Option]]


def phrase_table(
    pairs: Sequence[Pair], alignments: Sequence[Alignment], *, max_target: int = 12, keep: int = 30
) -> PhraseTable:
    """The ``keep`` most probable translations of each source phrase, of at most ``max_target`` words."""
    forward = _word_table(pairs, alignments)
    backward = _word_table([(t, s) for s, t in pairs], [_turned(points) for points in alignments])
    counts: Counter[tuple[Words, Words]] = Counter()
    inside: dict[tuple[Words, Words], tuple[float, float]] = {}
    for (source, target), points in zip(pairs, alignments, strict=True):
        given_source = _log_probs(target, source, _turned(points), forward)
        given_target = _log_probs(source, target, points, backward)
        for (a, b), (c, d) in extract(len(source), len(target), points, max_target):
            phrase = tuple(source[a:b]), tuple(target[c:d])
            counts[phrase] += 1
            best = inside.get(phrase, (-math.inf, -math.inf))
            inside[phrase] = max(best, (sum(given_source[c:d]), sum(given_target[a:b])))
    return _ranked(counts, inside, keep)


def extract(source: int, target: int, points: Alignment, max_target: int) -> Iterator[tuple[Span, Span]]:
    """(from, to) in the source and in the target of each phrase pair consistent with ``points``; lengths are given."""
    aligned = {j for _, j in points}
    for a in range(source):
        for b in range(a + 1, source + 1):
            inside = [j for i, j in points if a <= i < b]
            if not inside:
                continue
            low, high = min(inside), max(inside) + 1
            if any(low <= j < high and not a <= i < b for i, j in points):
                continue
            for c in range(low, -1, -1):
                if c < low and c in aligned:
                    break
                for d in range(high, min(target, c + max_target) + 1):
                    if d > high and d - 1 in aligned:
                        break
                    yield (a, b), (c, d)


def _ranked(
    counts: Counter[tuple[Words, Words]], inside: dict[tuple[Words, Words], tuple[float, float]], keep: int
) -> PhraseTable:
    sources: Counter[Words] = Counter()
    targets: Counter[Words] = Counter()
    for (source, target), count in counts.items():
        sources[source] += count
        targets[target] += count
    table: defaultdict[Words, list[Option]] = defaultdict(list)
    for (source, target), count in counts.items():
        known = math.log(count / sources[source]), math.log(count / targets[target])
        table[source].append(Option(target, (*known, *inside[source, target])))
    return {
        source: sorted(options, key=lambda one: (-one.features[0], one.target))[:keep]
        for source, options in table.items()
    }


def _log_probs(words: Sequence[str], given: Sequence[str], points: Alignment, table: WordTable) -> list[float]:
    """Natural log of p(word | aligned word), a mean if there are several (Koehn, Och and Marcu 2003, section 4.4).

    ``points`` are (position in ``words``, position in ``given``).
    """
    partners: list[list[str | None]] = [[] for _ in words]
    for i, j in points:
        partners[i].append(given[j])
    return [
        math.log(sum(table[partner, word] for partner in those or [None]) / max(len(those), 1))
        for word, those in zip(words, partners, strict=True)
    ]


def _word_table(pairs: Sequence[Pair], alignments: Sequence[Alignment]) -> WordTable:
    """p(target word | source word), from the aligned words."""
    counts: Counter[tuple[str | None, str]] = Counter()
    for (source, target), points in zip(pairs, alignments, strict=True):
        counts.update((source[i], target[j]) for i, j in points)
        counts.update((None, target[j]) for j in set(range(len(target))) - {j for _, j in points})
    total: Counter[str | None] = Counter()
    for (given, _), count in counts.items():
        total[given] += count
    return {key: count / total[key[0]] for key, count in counts.items()}


def _turned(points: Alignment) -> Alignment:
    return frozenset((j, i) for i, j in points)
