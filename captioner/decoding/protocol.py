"""What a search needs of a decoder, how it is asked, and what it finds. It knows numbers only: no model, no words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from captioner.decoding.config import DecodingConfig


class Decoder(Protocol):
    """Anything that says, given the tokens so far, how likely each next token is.

    A state stands for N sequences in progress and is opaque here; only the decoder looks inside.
    """

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Newest tokens (N,) int64 to log probabilities of the next ones (N, V), in nats, and the next state.

        -inf marks tokens that may not come next.
        """
        ...

    def select(self, state: Any, rows: Tensor) -> Any:
        """The sequences ``rows`` (M,) int64 of a state, in that order, repeated or left out at will."""
        ...


class Hypothesis(NamedTuple):
    """One sentence found."""

    ids: tuple[int, ...]
    """Its tokens, without the start and end tokens."""
    log_prob: float
    """Sum of the log probabilities of its tokens, in nats; that of the end token included unless it was cut off."""


@dataclass(frozen=True)
class How:
    """How to search. Every search reads the fields that mean something to it."""

    start: int
    """Token before the first."""
    end: int
    """Token behind the last."""
    search: str = "beam"
    """Name in ``captioner.decoding.SEARCHES``."""
    max_length: int = 20
    """Most tokens; a longer sentence is cut there, without an end token."""
    best: int = 1
    """Sentences wanted for each image; fewer come back where there are no more."""
    width: int = 3
    """Hypotheses of an image that go on beside each other."""
    length_penalty: float = 0.0
    """Hypotheses are ranked by log probability / tokens ** this, the end token counted; 0 is the paper's."""
    no_repeat: int = 0
    """Length of phrases that may not come twice in a sentence; 0 allows all."""
    number: int = 100
    """Sentences drawn for each image; the paper draws 100."""
    temperature: float = 1.0
    """Divides log probabilities before a draw."""
    seed: int = 0
    """Where the draws for each image start, so that they do not depend on the images beside it."""

    @classmethod
    def of(cls, decode: DecodingConfig, start: int, end: int, search: str = "", **others: Any) -> How:
        """As a configuration says, ``others`` apart; without a ``search`` by beam, or greedily where it is 1 wide."""
        settings = {
            "search": search or ("greedy" if decode.beam_size == 1 else decode.method),
            "width": decode.beam_size,
            "length_penalty": decode.length_penalty,
            "no_repeat": decode.no_repeat_ngram_size,
            "max_length": decode.max_length,
        }
        return cls(start, end, **{**settings, **others})


Search = Callable[[Decoder, Any, int, How], list[list[Hypothesis]]]
"""A decoder, a state of ``count`` images, that count and how to search to the ``how.best`` sentences for each image.

They come best first, at least one for each image. Raises ``UsageError`` for a ``how`` that it cannot follow.
"""
