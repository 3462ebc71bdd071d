"""What a decoding method needs of a model (``Decoder``), and what it returns (``Hypothesis``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from captioner.decoding.config import DecodingConfig

if TYPE_CHECKING:  # settings of decoding are read without numpy
    from captioner.arrays import Array


class Decoder(Protocol):
    """A model of the next token.

    A state stands for N sequences in progress; only the decoder looks inside. Arrays are numpy's or torch's, as the
    decoder likes: decoding goes on with the kind of its log probabilities, on their device. What a decoder gets before
    its first ``step`` returned is numpy's, so that one that works with torch starts by ``torch.as_tensor``.
    """

    def step(self, tokens: Array, state: Any) -> tuple[Array, Any]:
        """Newest tokens (N,) int64 to log probabilities of the next ones (N, V), in nats, and the next state.

        -inf marks tokens that cannot come next.
        """
        ...

    def select(self, state: Any, rows: Array) -> Any:
        """The sequences ``rows`` (M,) int64 of a state, in that order; rows may repeat or be left out."""
        ...


class Hypothesis(NamedTuple):
    """One decoded sentence."""

    ids: tuple[int, ...]
    """Its tokens, without the start and end tokens."""
    log_prob: float
    """Sum of the log probabilities of its tokens, in nats, including the end token unless the sentence was cut."""


class DecodingMethod(Protocol):
    """A function of ``captioner.decoding.METHODS``; arguments and result as of ``captioner.decoding.decode``."""

    def __call__(
        self, decoder: Decoder, state: Any, count: int, config: DecodingConfig, *, start: int, end: int
    ) -> list[list[Hypothesis]]: ...
