"""What searching needs of a decoder, and what it finds. Searching knows numbers only: no model, no words."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor


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
