"""Diversity of a set of captions: the shares of distinct and of novel captions, and the words that they use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from captioner.metrics.corpus import Tokens


def diversity(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], training: Iterable[Tokens] = ()
) -> dict[str, float]:
    """``distinct``, ``novel``, ``vocabulary`` (percent), ``words`` (a number) and ``length`` (mean, in tokens).

    ``distinct``: share of distinct captions. ``vocabulary``: share of the references' distinct words that occur in a
    caption. ``words``: number of distinct words in the captions. ``novel``: share of captions that equal no training
    caption token by token; only if ``training`` captions are given. An empty caption counts like any other.
    """
    captions = [tuple(tokens) for tokens in hypotheses]
    known = {tuple(tokens) for tokens in training}
    used = set(chain.from_iterable(captions))
    wanted = set(chain.from_iterable(chain.from_iterable(references)))
    number = max(len(captions), 1)
    found = {"distinct": 100 * len(set(captions)) / number}
    if known:
        found["novel"] = 100 * sum(caption not in known for caption in captions) / number
    return found | {
        "vocabulary": 100 * len(used & wanted) / max(len(wanted), 1),
        "words": len(used),
        "length": sum(map(len, captions)) / number,
    }
