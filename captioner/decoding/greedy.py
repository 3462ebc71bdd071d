"""One token after the other: the likeliest, or whatever else a rule chooses, for many sequences at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captioner.decoding.ngram_blocking import forbid_repeats
from captioner.decoding.protocol import Decoder, How, Hypothesis
from captioner.errors import UsageError


def greedy(decoder: Decoder, state: Any, count: int, how: How) -> list[list[Hypothesis]]:
    """The likeliest token at each step, for each of the ``count`` images of ``state``: a beam of width 1.

    Raises ``UsageError`` when more than one sentence is wanted.
    """
    if how.best != 1:
        raise UsageError(f"greedy search finds 1 caption, not {how.best}")
    return [[one] for one in follow(decoder, state, count, lambda log_probs: log_probs.argmax(-1), how)]


def follow(decoder: Decoder, state: Any, count: int, choose: Callable[[Tensor], Tensor], how: How) -> list[Hypothesis]:
    """Sequences whose next tokens (N,) ``choose`` picks from log probabilities (N, V); finished ones are left alone."""
    end, max_length = how.end, how.max_length
    log_probs, state = decoder.step(torch.full((count,), how.start), state)
    device = log_probs.device
    live = torch.arange(count, device=device)  # rows of the result that are still growing
    ids = torch.full((count, max_length), end, device=device)
    total = log_probs.new_zeros(count)
    for step in range(max_length):
        tokens = choose(forbid_repeats(log_probs, ids[live, :step], how.no_repeat))
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
