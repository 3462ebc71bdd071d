"""Decoders that are tables of log probabilities, for the tests of decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from captioner.decoding import Hypothesis

START, END = 0, 1
TOKENS = {"start": START, "end": END}
State = tuple[Tensor, Tensor]


@dataclass
class Markov:
    """The next token depends on the last two and on the image: log probabilities (images, V, V, V).

    The state is (image (N,), last token but one (N,)), so that a state given to the wrong hypothesis shows.
    """

    table: Tensor
    stepped: list[int] = field(default_factory=list)

    def begin(self, images: Sequence[int] | None = None) -> State:
        image = torch.tensor(range(len(self.table)) if images is None else images, dtype=torch.int64)
        return image, torch.full_like(image, START)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        image, before = state
        self.stepped.append(len(tokens))
        return self.table[image, before, tokens], (image, tokens)

    def select(self, state: State, rows: Tensor) -> State:
        return state[0][rows], state[1][rows]

    def after(self, image: int) -> Callable[[Sequence[int]], list[float]]:
        """The log probabilities of next tokens for one image as a function of the whole prefix, for the oracles."""

        def following(prefix: Sequence[int]) -> list[float]:
            before = prefix[-2] if len(prefix) > 1 else START
            return self.table[image, before, prefix[-1]].tolist()

        return following


def markov(images: int, vocabulary: int, seed: int = 0, spread: float = 1.5) -> Markov:
    """Random probabilities; the start token never comes again."""
    scores = spread * torch.randn(images, *[vocabulary] * 3, generator=torch.Generator().manual_seed(seed))
    scores[..., START] = -math.inf
    return Markov(scores.log_softmax(-1))


def same(found: Sequence[Hypothesis], expected: Sequence[tuple[tuple[int, ...], float]]) -> None:
    assert [one.ids for one in found] == [ids for ids, _ in expected]
    assert [one.log_prob for one in found] == pytest.approx([log_prob for _, log_prob in expected], abs=1e-5)
