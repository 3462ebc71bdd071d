"""No phrase twice: the rule that keeps a search out of loops such as "a red shirt and a red shirt and a red shirt"."""

from __future__ import annotations

import math

from torch import Tensor


def forbid_repeats(log_probs: Tensor, ids: Tensor, length: int) -> Tensor:
    """Log probabilities (R, V) with -inf for tokens that would end a phrase of ``length`` tokens already in ``ids``.

    ``ids`` (R, L) are the tokens so far; ``length`` 0 allows everything (Paulus et al. 2018, section 2.5, has 3).
    """
    known = ids.shape[1] - length + 1  # phrases there are so far
    if length < 1 or known < 1:
        return log_probs
    phrases = ids.unfold(1, length, 1)  # (R, known, length)
    tail = ids[:, ids.shape[1] - length + 1 :]  # (R, length - 1)
    same = (phrases[:, :, :-1] == tail[:, None]).all(-1)  # (R, known)
    row, place = same.nonzero(as_tuple=True)
    if not len(row):
        return log_probs
    allowed = log_probs.clone()
    allowed[row, phrases[row, place, -1]] = -math.inf
    stuck = row[~allowed[row].isfinite().any(-1)]
    allowed[stuck] = log_probs[stuck]
    return allowed
