"""The interface that decoding methods need of a model (``Decoder``), and their result (``Hypothesis``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from captioner.decoding.config import DecodingConfig

if TYPE_CHECKING:  # decoding settings must load without numpy
    from captioner.arrays import Array


class Decoder(Protocol):
    """A model that predicts the next token.

    A state represents N sequences in progress; only the decoder knows its contents. Arrays may be numpy's or torch's:
    decoding uses the kind and device of the log probabilities that ``step`` returns. Before the first ``step``,
    decoding passes numpy arrays, so a decoder in torch should call ``torch.as_tensor``.
    """

    def step(self, tokens: Array, state: Any) -> tuple[Array, Any]:
        """From the newest tokens (N,) int64, the log probabilities of the next ones (N, V) in nats, and the next state.

        -inf marks tokens that cannot come next.
        """
        ...

    def select(self, state: Any, rows: Array) -> Any:
        """The state of the sequences ``rows`` (M,) int64, in that order; rows may repeat or be left out."""
        ...


class Hypothesis(NamedTuple):
    """One decoded sentence."""

    ids: tuple[int, ...]
    """Its tokens, without the start and end tokens."""
    log_prob: float
    """Sum of the log probabilities of its tokens, in nats, including the end token unless the sentence was cut."""


class DecodingMethod(Protocol):
    """The type of the functions in ``METHODS``; arguments and result as of ``captioner.decoding.decode``."""

    def __call__(
        self, decoder: Decoder, state: Any, count: int, config: DecodingConfig, *, start: int, end: int
    ) -> list[list[Hypothesis]]: ...
