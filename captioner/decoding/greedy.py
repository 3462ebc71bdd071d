"""Greedy decoding, and the loop that it shares with sampling: one token at a time for many sequences at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captioner.decoding.config import DecodingConfig
from captioner.decoding.ngram_blocking import block_repeated_ngrams
from captioner.decoding.protocol import Decoder, Hypothesis

FIRST_LENGTH = 32
"""Tokens for which there is room at first."""


def greedy(
    decoder: Decoder, state: Any, count: int, config: DecodingConfig, *, start: int, end: int
) -> list[list[Hypothesis]]:
    """The most probable token at each step; one hypothesis for each of the ``count`` sequences of ``state``."""
    found = rollout(decoder, state, count, lambda log_probs: log_probs.argmax(-1), config, start=start, end=end)
    return [[one] for one in found]


def rollout(
    decoder: Decoder,
    state: Any,
    count: int,
    choose: Callable[[Tensor], Tensor],
    config: DecodingConfig,
    *,
    start: int,
    end: int,
) -> list[Hypothesis]:
    """Decode ``count`` sequences whose next tokens (N,) ``choose`` picks from log probabilities (N, V).

    Sequences that have ended are not stepped further. Of ``config``, ``max_length`` and ``no_repeat_ngram_size`` count.
    """
    max_length = config.max_length
    log_probs, state = decoder.step(torch.full((count,), start), state)
    device = log_probs.device
    live = torch.arange(count, device=device)  # rows of the result that are still growing
    ids = torch.full((count, min(max_length, FIRST_LENGTH)), end, device=device)
    total = log_probs.new_zeros(count)
    for step in range(max_length):
        if step == ids.shape[1]:  # doubled as needed: few sentences come near a large maximum
            ids = torch.cat([ids, torch.full_like(ids, end)], 1)
        tokens = choose(block_repeated_ngrams(log_probs, ids[live, :step], config.no_repeat_ngram_size))
        total[live] += log_probs.gather(1, tokens[:, None]).squeeze(1)  # (N, 1) -> (N,)
        ids[live, step] = tokens
        growing = tokens != end
        if step + 1 == max_length or not growing.any():
            break
        if not growing.all():
            live, tokens = live[growing], tokens[growing]
            state = decoder.select(state, growing.nonzero().flatten())  # (M, 1) -> (M,)
        log_probs, state = decoder.step(tokens, state)
    rows = [row[: row.index(end)] if end in row else row for row in ids.tolist()]
    return [Hypothesis(tuple(row), score) for row, score in zip(rows, total.tolist(), strict=True)]
