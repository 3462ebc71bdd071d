"""Drawing sentences from the model, and keeping the most probable of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from captioner.decoding.greedy import follow
from captioner.decoding.protocol import Decoder, How, Hypothesis
from captioner.errors import UsageError


def sample(decoder: Decoder, state: Any, count: int, how: How) -> list[list[Hypothesis]]:
    """``draw`` for each of ``count`` images, from the seed each time; the ``best`` most probable different sentences.

    They are ranked by the log probability under the untempered model. Raises ``UsageError`` for a number out of range.
    """
    if not 1 <= how.best <= how.number:
        raise UsageError(f"sampling: cannot keep the best {how.best} of {how.number} samples")
    each = (draw(decoder, decoder.select(state, torch.tensor([image])), 1, how) for image in range(count))
    return [_best(drawn, how.best) for (drawn,) in each]


def draw(decoder: Decoder, state: Any, count: int, how: How) -> list[list[Hypothesis]]:
    """``how.number`` sentences for each of ``count`` images, in the order in which they are drawn from ``seed`` on.

    Log probabilities are divided by ``temperature`` before each draw, so that below 1 likely words become likelier.
    The paper (arXiv 1411.4389v4, Table 6) *multiplies* by its T: its T = 1.5 is temperature 0.667 here, and its best
    of N is ``number=100``. Hypotheses report the log probability under the untempered model. Raises ``UsageError`` for
    a temperature out of range.
    """
    if not 0 < how.temperature < float("inf"):
        raise UsageError(f"sampling: temperature must be above 0, not {how.temperature}")

    @cache
    def generator(device: torch.device) -> torch.Generator:  # torch wants it where the log probabilities are
        return torch.Generator(device).manual_seed(how.seed)

    def choose(log_probs: Tensor) -> Tensor:
        odds = (log_probs / how.temperature).softmax(-1)  # the missing mass of forbidden tokens is shared out here
        return _pick(odds, generator(odds.device))

    state = decoder.select(state, torch.arange(count).repeat_interleave(how.number))
    drawn = follow(decoder, state, count * how.number, choose, how)
    return [drawn[first : first + how.number] for first in range(0, len(drawn), how.number)]


def _pick(odds: Tensor, generator: torch.Generator) -> Tensor:
    """A column for each row of ``odds`` (N, V), drawn in proportion to them; one that has none is never drawn.

    By one random number a row, from the left of its cumulative sum: ``torch.multinomial`` draws one for each of the N
    x V, which takes longer than a small model needs to compute the odds.
    """
    sums = odds.cumsum(-1)
    levels = sums[:, -1:] * (1 - torch.rand(len(odds), 1, generator=generator, device=odds.device))  # above 0
    return torch.searchsorted(sums, levels).squeeze(1)  # (N, 1) -> (N,)


def _best(drawn: list[Hypothesis], best: int) -> list[Hypothesis]:
    """The ``best`` most probable sentences, each once; ties in the order of their tokens."""
    different = {hypothesis.ids: hypothesis for hypothesis in drawn}.values()
    return sorted(different, key=lambda hypothesis: (-hypothesis.log_prob, hypothesis.ids))[:best]
