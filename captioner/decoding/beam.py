"""Beam search over many images at once, carrying the recurrent state from step to step.

Each step calls ``expand`` (the best continuations of each hypothesis), ``prune`` (the best of those for each image,
split into finished and unfinished ones) and ``finish`` (the scores that unfinished hypotheses have to beat). Hypotheses
are rows of arrays, ordered by image; an image has one row for each unfinished hypothesis.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device

from captioner.arrays import Array, namespace, top_k
from captioner.decoding.config import DecodingConfig
from captioner.decoding.ngram_blocking import block_repeated_ngrams
from captioner.decoding.protocol import Decoder, Hypothesis


class Beam(NamedTuple):
    """R unfinished hypotheses."""

    image: Array
    """Index of each hypothesis' image, (R,), ascending."""
    ids: Array
    """Tokens so far, (R, steps), without the start token."""
    log_prob: Array
    """Sum of log probabilities, (R,), in nats."""


class Candidates(NamedTuple):
    """M continuations, each by one token."""

    row: Array
    """Index of the hypothesis that each one continues, (M,)."""
    token: Array
    log_prob: Array
    """Log probability of the whole hypothesis, with the token, (M,), in nats."""


def beam_search(
    decoder: Decoder, state: Any, count: int, config: DecodingConfig, *, start: int, end: int
) -> list[list[Hypothesis]]:
    """The ``num_return_sequences`` best hypotheses for each of the ``count`` images of ``state``, best first.

    A hypothesis whose end token is among the ``beam_size`` best continuations of its image is finished; the
    ``beam_size`` best unfinished ones are kept. An image is done when ``beam_size`` hypotheses are finished or no
    unfinished one can still be among the best; so beam size 1 is greedy decoding. At ``max_length`` tokens a hypothesis
    is cut, without an end token, and competes with the finished ones.
    """
    width, best, max_length = config.beam_size, config.num_return_sequences, config.max_length
    assert best <= width, "DecodingConfig checks this for method beam"
    log_probs, state = decoder.step(np.full(count, start, np.int64), state)  # (R, V)
    finished: list[tuple[Beam, float]] = []  # each with the divisor of its log probabilities
    beam, scores = _begin(log_probs, width)
    for step in range(1, max_length + 1):
        divisor = step**config.length_penalty
        log_probs = block_repeated_ngrams(log_probs, beam.ids, config.no_repeat_ngram_size)
        ending, going_on = prune(beam.image, *expand(beam, log_probs, width), count, width, end)
        ended = extend(beam, ending, keep_token=False)
        beam = extend(beam, going_on, keep_token=True)
        finished.append((ended, divisor))
        if step == max_length:
            finished.append((beam, divisor))
            break
        scores = finish(scores, ended, divisor)
        rows = can_win(beam, scores, best, max_length**config.length_penalty)
        if not len(rows):
            break
        state = decoder.select(state, going_on.row[rows])
        beam = Beam(*(part[rows] for part in beam))
        log_probs, state = decoder.step(beam.ids[:, -1], state)
    return _rank(finished, count, best)


def _begin(log_probs: Array, width: int) -> tuple[Beam, Array]:
    """One empty hypothesis for each image of log probabilities (N, V), and no finished scores (N, width) yet."""
    xp, on, count = namespace(log_probs), device(log_probs), log_probs.shape[0]
    image = xp.arange(count, dtype=xp.int64, device=on)
    ids = xp.empty((count, 0), dtype=xp.int64, device=on)
    total = xp.zeros(count, dtype=log_probs.dtype, device=on)
    return Beam(image, ids, total), xp.full((count, width), -math.inf, dtype=log_probs.dtype, device=on)


def expand(beam: Beam, log_probs: Array, width: int) -> tuple[Array, Array]:
    """The best next tokens of each hypothesis, (R, K), and the log probabilities with them, from log_probs (R, V).

    K is ``width + 1`` because one of them may be the end token.
    """
    log_prob, token = top_k(log_probs, min(width + 1, log_probs.shape[1]))
    return token, log_prob + beam.log_prob[:, None]


def prune(
    image: Array, tokens: Array, log_probs: Array, count: int, width: int, end: int
) -> tuple[Candidates, Candidates]:
    """Split continuations (R, K) into finished ones and the best unfinished ones.

    A continuation is finished if its token is ``end`` and it is among its image's ``width`` best. ``image`` (R,) is the
    index of the image of each row. Both parts are ordered by image, at most ``width`` each, best first; impossible
    continuations are left out.
    """
    xp = namespace(image)
    per_row = tokens.shape[1]
    first, table = _by_image(image, log_probs, count, width)
    flat = xp.reshape(table, (count, width * per_row))
    # At most `width` continuations of an image end, so its best 2 * width include `width` unfinished ones.
    log_prob, place = top_k(flat, min(2 * width, flat.shape[1]))  # (count, P)
    there = xp.isfinite(log_prob)
    row = (first[:, None] + place // per_row) * there  # an image without rows has no valid index
    token = tokens[row, place % per_row]
    ends = (token == end) & there
    ending = ends & (xp.arange(place.shape[1], device=device(place)) < width)
    others = there & ~ends
    going_on = others & (xp.cumulative_sum(others, axis=-1) <= width)
    return (
        Candidates(row[ending], token[ending], log_prob[ending]),
        Candidates(row[going_on], token[going_on], log_prob[going_on]),
    )


def extend(beam: Beam, candidates: Candidates, *, keep_token: bool) -> Beam:
    """The hypotheses that ``candidates`` (M,) continue, with the new token appended if ``keep_token``."""
    ids = beam.ids[candidates.row]
    if keep_token:
        ids = namespace(ids).concat([ids, candidates.token[:, None]], axis=1)
    return Beam(beam.image[candidates.row], ids, candidates.log_prob)


def finish(scores: Array, finished: Beam, divisor: float) -> Array:
    """Merge newly ``finished`` hypotheses (F,) into each image's best finished scores (count, width), descending."""
    if not len(finished.image):
        return scores
    count, width = scores.shape
    _, table = _by_image(finished.image, finished.log_prob / divisor, count, width)
    best, _ = top_k(namespace(scores).concat([scores, table], axis=1), width)
    return best


def _by_image(image: Array, values: Array, count: int, width: int) -> tuple[Array, Array]:
    """The first row of each image (count,), and ``values`` (R, ...) as a table (count, width, ...) padded with -inf.

    ``image`` (R,) is the index of the image of each row, ascending.
    """
    xp, on = namespace(image), device(image)
    first = xp.searchsorted(image, xp.arange(count, device=on))
    slot = xp.arange(len(image), device=on) - first[image]  # a row's position within its image
    table = xp.full((count, width, *values.shape[1:]), -math.inf, dtype=values.dtype, device=on)
    table[image, slot] = values
    return first, table


def can_win(beam: Beam, scores: Array, best: int, divisor: float) -> Array:
    """Indices (M,) of the hypotheses that may still be among the ``best`` of their image.

    Log probabilities only fall, so the best possible score is the current log probability over ``divisor``, that of the
    longest length.
    """
    kept = scores[beam.image]  # (R, width)
    xp = namespace(kept)
    (rows,) = xp.nonzero((beam.log_prob / divisor > kept[:, best - 1]) & xp.isinf(kept[:, -1]))
    return rows


def _rank(finished: list[tuple[Beam, float]], count: int, best: int) -> list[list[Hypothesis]]:
    """The ``best`` hypotheses of each image, best first; an empty hypothesis if the decoder allows no token at all."""
    found: list[list[tuple[float, Hypothesis]]] = [[] for _ in range(count)]
    for beam, divisor in finished:
        for image, ids, log_prob in zip(*(part.tolist() for part in beam), strict=True):
            found[image].append((log_prob / divisor, Hypothesis(tuple(ids), log_prob)))
    ranked = [[h for _, h in sorted(one, key=lambda pair: -pair[0])[:best]] for one in found]
    return [one or [Hypothesis((), -math.inf)] for one in ranked]
