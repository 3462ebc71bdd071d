"""Retrieval scores: recall at 1, 5 and 10, and the median rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from captioner.errors import DataError

AT = (1, 5, 10)


def retrieval_scores(ranks: ArrayLike, at: Sequence[int] = AT) -> dict[str, float]:
    """``{"R@1": ..., "R@5": ..., "R@10": ..., "median rank": ...}`` of ranks (Q,), one for each query.

    A rank is the position, from 1, of the right answer; if there are several, that of the first. Recalls are in
    percent. With an even number of queries the median may lie halfway between two ranks.
    """
    found = np.asarray(ranks)
    if found.ndim != 1 or not len(found) or found.min() < 1:
        raise DataError(f"ranks must be a list of numbers from 1 on, one for each query; got shape {found.shape}")
    recalls = {f"R@{k}": 100.0 * float((found <= k).mean()) for k in at}
    return recalls | {"median rank": float(np.median(found))}
