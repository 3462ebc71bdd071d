"""Beam search over many images at once, carrying the recurrent state from step to step.

One step is ``expand`` (the best continuations of each hypothesis), ``prune`` (the best of those for each image, split
into finished and unfinished ones) and ``finish`` (the scores that unfinished hypotheses have to beat). Hypotheses are
rows of tensors, ordered by image; an image has one row for each unfinished hypothesis.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captioner.decoding.config import DecodingConfig
from captioner.decoding.ngram_blocking import block_repeated_ngrams
from captioner.decoding.protocol import Decoder, Hypothesis


class Beam(NamedTuple):
    """R hypotheses."""

    image: Tensor
    """Index of the image that each belongs to, (R,), ascending."""
    ids: Tensor
    """Tokens so far, (R, steps), without the start token."""
    log_prob: Tensor
    """Sum of log probabilities, (R,), in nats."""


class Candidates(NamedTuple):
    """Continuations by one token, K for each of R hypotheses, or any number of them in one dimension."""

    row: Tensor
    """Index of the continued hypothesis."""
    token: Tensor
    log_prob: Tensor
    """Of the whole hypothesis, including the token, in nats."""


def beam_search(
    decoder: Decoder, state: Any, count: int, config: DecodingConfig, *, start: int, end: int
) -> list[list[Hypothesis]]:
    """The ``num_return_sequences`` best hypotheses for each of the ``count`` images of ``state``, best first.

    A hypothesis that ends among the ``beam_size`` best continuations of its image is finished; the ``beam_size`` best
    unfinished ones are kept. An image is done when ``beam_size`` hypotheses are finished or no unfinished one can still
    be among the best, so that beam size 1 is greedy decoding. At ``max_length`` tokens a hypothesis is cut, without an
    end token, and competes with the finished ones.
    """
    width, best, max_length = config.beam_size, config.num_return_sequences, config.max_length
    assert best <= width, "DecodingConfig checks this for method beam"
    log_probs, state = decoder.step(torch.full((count,), start), state)  # (R, V)
    image = torch.arange(count, device=log_probs.device)
    beam = Beam(image, image.new_empty(count, 0), log_probs.new_zeros(count))
    finished: list[tuple[Beam, float]] = []  # with the divisor of their log probability
    scores = log_probs.new_full((count, width), -math.inf)  # of the best finished ones of each image, descending
    for step in range(1, max_length + 1):
        divisor = step**config.length_penalty
        log_probs = block_repeated_ngrams(log_probs, beam.ids, config.no_repeat_ngram_size)
        ending, going_on = prune(beam.image, expand(beam, log_probs, width), count, width, end)
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


def expand(beam: Beam, log_probs: Tensor, width: int) -> Candidates:
    """The ``width + 1`` best continuations, (R, K), of each hypothesis, from next-token log probabilities (R, V).

    One more than ``width``, because one of them may be the end token.
    """
    log_prob, token = log_probs.topk(min(width + 1, log_probs.shape[1]), -1)
    row = torch.arange(len(token), device=token.device)[:, None].expand_as(token)
    return Candidates(row, token, log_prob + beam.log_prob[:, None])


def prune(image: Tensor, candidates: Candidates, count: int, width: int, end: int) -> tuple[Candidates, Candidates]:
    """Split continuations (R, K) into those that end among their image's ``width`` best, and the best that go on.

    ``image`` (R,) is the index of the image of each row. Both parts come image by image, at most ``width`` of each,
    best first; impossible continuations are left out.
    """
    rows, per_row = candidates.token.shape
    first = torch.searchsorted(image, torch.arange(count, device=image.device))  # row where an image begins
    slot = torch.arange(rows, device=image.device) - first[image]  # a row's place within its image
    table = candidates.log_prob.new_full((count, width, per_row), -math.inf)
    table[image, slot] = candidates.log_prob
    flat = table.view(count, width * per_row)
    # An image's hypotheses end at most `width` times, so that twice the width holds as many that go on.
    log_prob, place = flat.topk(min(2 * width, flat.shape[1]), -1)  # (count, P)
    row = (first[:, None] + place // per_row).clamp_(max=rows - 1)  # an image without rows points nowhere; see `there`
    token = candidates.token[row, place % per_row]
    there = log_prob.isfinite()
    ends = (token == end) & there
    ending = ends & (torch.arange(place.shape[1], device=place.device) < width)
    others = there & ~ends
    going_on = others & (others.cumsum(-1) <= width)
    return (
        Candidates(row[ending], token[ending], log_prob[ending]),
        Candidates(row[going_on], token[going_on], log_prob[going_on]),
    )


def extend(beam: Beam, candidates: Candidates, *, keep_token: bool) -> Beam:
    """The hypotheses that ``candidates`` (M,) continue, with the new token appended if ``keep_token``."""
    ids = beam.ids[candidates.row]
    if keep_token:
        ids = torch.cat([ids, candidates.token[:, None]], 1)
    return Beam(beam.image[candidates.row], ids, candidates.log_prob)


def finish(scores: Tensor, finished: Beam, divisor: float) -> Tensor:
    """Merge newly ``finished`` hypotheses (F,) into each image's best finished scores (count, width), descending."""
    if not len(finished.image):
        return scores
    count, width = scores.shape
    first = torch.searchsorted(finished.image, torch.arange(count, device=scores.device))
    slot = torch.arange(len(finished.image), device=scores.device) - first[finished.image]
    joined = torch.full_like(scores, -math.inf)
    joined[finished.image, slot] = finished.log_prob / divisor
    return torch.cat([scores, joined], 1).topk(width, -1).values


def can_win(beam: Beam, scores: Tensor, best: int, divisor: float) -> Tensor:
    """Indices (M,) of the hypotheses that may still be among the ``best`` of their image.

    Log probabilities only fall, so none will score more than its current one over that of the longest length
    (``divisor``).
    """
    kept = scores[beam.image]  # (R, width)
    possible = (beam.log_prob / divisor > kept[:, best - 1]) & kept[:, -1].isinf()
    return possible.nonzero().flatten()  # (M, 1) -> (M,)


def _rank(finished: list[tuple[Beam, float]], count: int, best: int) -> list[list[Hypothesis]]:
    """The ``best`` hypotheses of each image, best first; an empty one where the decoder allows no token at all."""
    found: list[list[tuple[float, Hypothesis]]] = [[] for _ in range(count)]
    for beam, divisor in finished:
        for image, ids, log_prob in zip(*(part.tolist() for part in beam), strict=True):
            found[image].append((log_prob / divisor, Hypothesis(tuple(ids), log_prob)))
    ranked = [[h for _, h in sorted(one, key=lambda pair: -pair[0])[:best]] for one in found]
    return [one or [Hypothesis((), -math.inf)] for one in ranked]
