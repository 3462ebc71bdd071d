"""Greedy decoding, and the loop it shares with sampling, which adds one token at a time to many sequences at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import device

from captioner.arrays import Array, namespace
from captioner.decoding.config import DecodingConfig
from captioner.decoding.ngram_blocking import block_repeated_ngrams
from captioner.decoding.protocol import Decoder, Hypothesis

FIRST_LENGTH = 32
"""Initial capacity in tokens."""


def greedy(
    decoder: Decoder, state: Any, count: int, config: DecodingConfig, *, start: int, end: int
) -> list[list[Hypothesis]]:
    """The most probable token at each step; one hypothesis for each of the ``count`` sequences of ``state``."""
    found = rollout(decoder, state, count, _most_probable, config, start=start, end=end)
    return [[one] for one in found]


def rollout(
    decoder: Decoder,
    state: Any,
    count: int,
    choose: Callable[[Array], Array],
    config: DecodingConfig,
    *,
    start: int,
    end: int,
) -> list[Hypothesis]:
    """Decode ``count`` sequences; ``choose`` picks their next tokens (N,) from log probabilities (N, V).

    Sequences that have ended take no further steps. Of ``config``, only ``max_length`` and ``no_repeat_ngram_size`` are
    used.
    """
    max_length = config.max_length
    log_probs, state = decoder.step(np.full(count, start, np.int64), state)
    xp, on = namespace(log_probs), device(log_probs)
    rows = xp.arange(count, dtype=xp.int64, device=on)
    live = rows  # rows of unfinished sequences
    ids = xp.full((count, min(max_length, FIRST_LENGTH)), end, dtype=xp.int64, device=on)
    total = xp.zeros(count, dtype=log_probs.dtype, device=on)
    for step in range(max_length):
        if step == ids.shape[1]:  # doubled as needed: few sentences reach a large maximum
            ids = xp.concat([ids, xp.full_like(ids, end)], axis=1)
        tokens = choose(block_repeated_ngrams(log_probs, ids[live, :step], config.no_repeat_ngram_size))
        total[live] += log_probs[rows[: len(tokens)], tokens]
        ids[live, step] = tokens
        growing = tokens != end
        if step + 1 == max_length or not xp.any(growing):
            break
        if not xp.all(growing):
            live, tokens = live[growing], tokens[growing]
            state = decoder.select(state, xp.nonzero(growing)[0])
        log_probs, state = decoder.step(tokens, state)
    sentences = [row[: row.index(end)] if end in row else row for row in ids.tolist()]
    return [Hypothesis(tuple(row), score) for row, score in zip(sentences, total.tolist(), strict=True)]


def _most_probable(log_probs: Array) -> Array:
    return namespace(log_probs).argmax(log_probs, axis=-1)
