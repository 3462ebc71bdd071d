"""Beam search in plain loops for one image, which runs every prefix again from its beginning at each step.

The fast search must find the same; benchmarks measure what carrying the state is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captioner.models.lrcn import LRCN
from captioner.text.vocabulary import NEVER

Next = Callable[[list[tuple[int, ...]]], Sequence[Sequence[float]]]
"""Several prefixes of equal length, start token first, to the log probabilities of their next tokens."""


def naive_beam_search(
    following: Next,
    *,
    start: int,
    end: int,
    beam_size: int,
    max_length: int,
    length_penalty: float = 0.0,
    num_return_sequences: int = 1,
) -> list[tuple[tuple[int, ...], float]]:
    """The best (tokens, log probability) found, under the rules of ``captioner.decoding.beam``."""
    beam: list[tuple[tuple[int, ...], float]] = [((start,), 0.0)]
    finished: list[tuple[float, tuple[int, ...], float]] = []
    for step in range(1, max_length + 1):
        continued = [
            ((*tokens, token), log_prob + more)
            for (tokens, log_prob), row in zip(beam, following([tokens for tokens, _ in beam]), strict=True)
            for token, more in enumerate(row)
            if more > -math.inf
        ]
        continued.sort(key=lambda one: -one[1])
        for tokens, log_prob in continued[:beam_size]:
            if tokens[-1] == end:
                finished.append((log_prob / step**length_penalty, tokens[1:-1], log_prob))
        finished.sort(key=lambda one: -one[0])
        beam = [one for one in continued if one[0][-1] != end][:beam_size]
        if step == max_length:
            break
        if len(finished) >= beam_size:
            beam = []
        elif len(finished) >= num_return_sequences:
            beam = [one for one in beam if one[1] / max_length**length_penalty > finished[num_return_sequences - 1][0]]
        if not beam:
            break
    cut = [(log_prob / max_length**length_penalty, tokens[1:], log_prob) for tokens, log_prob in beam]
    ranked = sorted(finished + cut, key=lambda one: -one[0])
    return [(tokens, log_prob) for _, tokens, log_prob in ranked[:num_return_sequences]]


def run_again(model: LRCN, feature: Tensor) -> Next:
    """The model as a function of whole prefixes, for the feature (D,) of one image."""

    def following(prefixes: list[tuple[int, ...]]) -> list[list[float]]:
        tokens = torch.tensor(prefixes)
        log_probs = model(feature.expand(len(prefixes), -1), tokens)[:, -1].log_softmax(-1)  # (N, T, V) -> (N, V)
        log_probs[:, NEVER] = -math.inf
        return log_probs.tolist()

    return following
