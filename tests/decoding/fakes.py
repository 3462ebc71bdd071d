"""Decoders that are tables of log probabilities, for the tests of decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from captioner.arrays import Array
from captioner.decoding import Hypothesis

START, END = 0, 1
TOKENS = {"start": START, "end": END}
KINDS = ("numpy", "torch")
State = tuple[Array, Array]


@dataclass
class Markov:
    """The next token depends on the last two and on the image: log probabilities (images, V, V, V).

    The state is (image (N,), last token but one (N,)), so that a state given to the wrong hypothesis shows. The table
    is an array of numpy or torch, and so is all that the decoder returns.
    """

    table: Array
    stepped: list[int] = field(default_factory=list)

    def begin(self, images: Sequence[int] | None = None) -> State:
        image = np.array(range(len(self.table)) if images is None else images, np.int64)
        return self._own(image), self._own(np.full_like(image, START))

    def step(self, tokens: Array, state: State) -> tuple[Array, State]:
        (image, before), tokens = state, self._own(tokens)
        self.stepped.append(len(tokens))
        return self.table[image, before, tokens], (image, tokens)

    def select(self, state: State, rows: Array) -> State:
        rows = self._own(rows)
        return state[0][rows], state[1][rows]

    def _own(self, array: Array) -> Array:
        """The array as one of the table's kind; numpy must get numpy, as where torch is not installed."""
        if isinstance(self.table, torch.Tensor):
            return torch.as_tensor(array)
        assert isinstance(array, np.ndarray) and array.dtype == np.int64
        return array

    def after(self, image: int) -> Callable[[Sequence[int]], list[float]]:
        """The log probabilities of next tokens for one image as a function of the whole prefix, for the oracles."""

        def following(prefix: Sequence[int]) -> list[float]:
            before = prefix[-2] if len(prefix) > 1 else START
            return self.table[image, before, prefix[-1]].tolist()

        return following


def markov(images: int, vocabulary: int, seed: int = 0, spread: float = 1.5, kind: str = "torch") -> Markov:
    """Random probabilities; the start token never comes again."""
    scores = spread * torch.randn(images, *[vocabulary] * 3, generator=torch.Generator().manual_seed(seed))
    scores[..., START] = -math.inf
    return of_kind(kind, scores.log_softmax(-1))


def of_kind(kind: str, table: torch.Tensor) -> Markov:
    """A decoder of numpy or torch."""
    return Markov(table.numpy() if kind == "numpy" else table)


def same(found: Sequence[Hypothesis], expected: Sequence[tuple[tuple[int, ...], float]]) -> None:
    assert [one.ids for one in found] == [ids for ids, _ in expected]
    assert [one.log_prob for one in found] == pytest.approx([log_prob for _, log_prob in expected], abs=1e-5)
