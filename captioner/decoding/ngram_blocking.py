"""Blocking of repeated n-grams, which keeps decoding out of loops like "a red shirt and a red shirt"."""

from __future__ import annotations

import math

from array_api_compat import device

from captioner.decoding.arrays import Array, namespace


def block_repeated_ngrams(log_probs: Array, ids: Array, size: int) -> Array:
    """Log probabilities (R, V) with -inf for tokens that would repeat an n-gram of ``size`` tokens within ``ids``.

    ``ids`` (R, L) are the tokens so far; ``size`` 0 allows everything (Paulus et al. 2018, section 2.5, has 3). A row
    in which nothing else would be possible is left as it is.
    """
    known = ids.shape[1] - size + 1  # n-grams so far
    if size < 1 or known < 1:
        return log_probs
    xp, on = namespace(log_probs), device(log_probs)
    ngrams = ids[:, xp.arange(known, device=on)[:, None] + xp.arange(size, device=on)]  # (R, known, size)
    tail = ids[:, ids.shape[1] - size + 1 :]  # (R, size - 1)
    row, place = xp.nonzero(xp.all(ngrams[:, :, :-1] == tail[:, None], axis=-1))  # of (R, known)
    if not len(row):
        return log_probs
    allowed = xp.asarray(log_probs, copy=True)
    allowed[row, ngrams[row, place, -1]] = -math.inf
    stuck = row[~xp.any(xp.isfinite(allowed[row]), axis=-1)]
    allowed[stuck] = log_probs[stuck]
    return allowed
