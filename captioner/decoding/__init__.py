"""Decoding: from a model's next-token probabilities to sentences of token ids.

A decoding method is one file with a function like ``decode`` below and one line in ``METHODS``. It uses only token ids
and the ``Decoder`` protocol: no model, no words.
"""

from __future__ import annotations

from typing import Any

from captioner.decoding.config import METHODS, DecodingConfig
from captioner.decoding.protocol import Decoder, DecodingMethod, Hypothesis
from captioner.errors import UsageError
from captioner.registry import resolve

__all__ = ["METHODS", "Decoder", "DecodingConfig", "Hypothesis", "decode"]


def decode(
    decoder: Decoder, state: Any, count: int, config: DecodingConfig, *, start: int, end: int
) -> list[list[Hypothesis]]:
    """Decode the ``count`` sequences of ``state`` by ``config.method``.

    ``start`` and ``end`` are the ids of the start and end tokens. Returns for each sequence
    ``config.num_return_sequences`` hypotheses (or as many as there are, at least one), best first.
    """
    one_wide = config.method == "beam" and config.beam_size == 1
    name = "greedy" if one_wide else config.method  # the same result in less time
    method: DecodingMethod = resolve(METHODS, name, "decoding method", UsageError)
    return method(decoder, state, count, config, start=start, end=end)
