"""Every possible sentence, scored one by one: what beam search must find when its beam is wide enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

Next = Callable[[Sequence[int]], Sequence[float]]
"""Tokens so far, the start token first, to the log probability of each next token."""


def exhaustive_search(
    following: Next,
    *,
    start: int,
    end: int,
    max_length: int,
    length_penalty: float = 0.0,
    num_return_sequences: int = 1,
) -> list[tuple[tuple[int, ...], float]]:
    """The best (tokens, log probability) of all sentences that end or reach ``max_length`` tokens."""
    scored = []
    for tokens, log_prob in sentences(following, (start,), end, max_length):
        words = tokens[1:-1] if tokens[-1] == end else tokens[1:]
        scored.append((log_prob / (len(tokens) - 1) ** length_penalty, words, log_prob))
    scored.sort(key=lambda one: -one[0])
    return [(words, log_prob) for _, words, log_prob in scored[:num_return_sequences]]


def sentences(following: Next, prefix: tuple[int, ...], end: int, left: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """All possible continuations of ``prefix`` by at most ``left`` tokens, with their log probability."""
    if left == 0 or prefix[-1] == end:
        yield prefix, 0.0
        return
    for token, log_prob in enumerate(following(prefix)):
        if log_prob > -math.inf:
            for tokens, rest in sentences(following, (*prefix, token), end, left - 1):
                yield tokens, log_prob + rest
