"""Blocking of repeated n-grams, which keeps decoding out of loops like "a red shirt and a red shirt"."""

from __future__ import annotations

import math

from torch import Tensor


def block_repeated_ngrams(log_probs: Tensor, ids: Tensor, size: int) -> Tensor:
    """Log probabilities (R, V) with -inf for tokens that would repeat an n-gram of ``size`` tokens within ``ids``.

    ``ids`` (R, L) are the tokens so far; ``size`` 0 allows everything (Paulus et al. 2018, section 2.5, has 3). A row
    in which nothing else would be possible is left as it is.
    """
    known = ids.shape[1] - size + 1  # n-grams so far
    if size < 1 or known < 1:
        return log_probs
    ngrams = ids.unfold(1, size, 1)  # (R, known, size)
    tail = ids[:, ids.shape[1] - size + 1 :]  # (R, size - 1)
    same = (ngrams[:, :, :-1] == tail[:, None]).all(-1)  # (R, known)
    row, place = same.nonzero(as_tuple=True)
    if not len(row):
        return log_probs
    allowed = log_probs.clone()
    allowed[row, ngrams[row, place, -1]] = -math.inf
    stuck = row[~allowed[row].isfinite().any(-1)]
    allowed[stuck] = log_probs[stuck]
    return allowed
