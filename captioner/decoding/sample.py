"""Drawing sentences from the model, and keeping the most probable of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captioner.decoding.greedy import follow
from captioner.decoding.protocol import Decoder, Hypothesis
from captioner.errors import UsageError


def sample(
    decoder: Decoder,
    state: Any,
    count: int,
    *,
    start: int,
    end: int,
    number: int,
    temperature: float = 1.0,
    max_length: int,
    generator: torch.Generator | None = None,
    best: int = 1,
) -> list[list[Hypothesis]]:
    """Draw ``number`` sentences for each of ``count`` sequences; the ``best`` most probable different ones, in order.

    Log probabilities are divided by ``temperature`` before each draw, so that below 1 likely words become likelier.
    The paper (arXiv 1411.4389v4, Table 6) *multiplies* by its T: its T = 1.5 is temperature 0.667 here, and its best
    of N is ``number=100``. Hypotheses are ranked by, and report, the log probability under the untempered model. A
    sentence of ``max_length`` tokens is cut there, without an end token. ``generator`` (torch's global one if None)
    lives on the device of the log probabilities. Raises ``UsageError`` for a number out of range.
    """
    if not 1 <= best <= number:
        raise UsageError(f"sampling: cannot keep the best {best} of {number} samples")
    if not 0 < temperature < float("inf"):
        raise UsageError(f"sampling: temperature must be above 0, not {temperature}")

    def draw(log_probs: Tensor) -> Tensor:
        odds = (log_probs / temperature).softmax(-1)  # the missing mass of forbidden tokens is shared out here
        return torch.multinomial(odds, 1, generator=generator).squeeze(1)  # (N, 1) -> (N,)

    state = decoder.select(state, torch.arange(count).repeat_interleave(number))
    drawn = follow(decoder, state, count * number, draw, start=start, end=end, max_length=max_length)
    return [_best(drawn[first : first + number], best) for first in range(0, len(drawn), number)]


def _best(drawn: list[Hypothesis], best: int) -> list[Hypothesis]:
    """The ``best`` most probable sentences, each once; ties in the order of their tokens."""
    different = {hypothesis.ids: hypothesis for hypothesis in drawn}.values()
    return sorted(different, key=lambda hypothesis: (-hypothesis.log_prob, hypothesis.ids))[:best]
