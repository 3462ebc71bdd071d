"""Blocking of repeated n-grams, which prevents loops like "a red shirt and a red shirt"."""

from __future__ import annotations

import math

from array_api_compat import device

from captioner.arrays import Array, namespace


def block_repeated_ngrams(log_probs: Array, ids: Array, size: int) -> Array:
    """Log probabilities (R, V) with -inf for tokens that would repeat an n-gram of ``size`` tokens within ``ids``.

    ``ids`` (R, L) are the tokens so far; ``size`` 0 blocks nothing (Paulus et al. 2018, section 2.5, use 3). A row that
    would have no possible token left is returned unchanged.
    """
    known = ids.shape[1] - size + 1  # n-grams so far
    if size < 1 or known < 1:
        return log_probs
    xp = namespace(log_probs)
    same = xp.ones((len(ids), known), dtype=xp.bool, device=device(ids))  # n-grams that begin like the newest one
    for offset in range(size - 1):
        same &= ids[:, offset : offset + known] == ids[:, known + offset, None]
    row, place = xp.nonzero(same)
    if not len(row):
        return log_probs
    allowed = xp.asarray(log_probs, copy=True)
    allowed[row, ids[row, place + size - 1]] = -math.inf
    stuck = row[~xp.any(xp.isfinite(allowed[row]), axis=-1)]
    allowed[stuck] = log_probs[stuck]
    return allowed
