"""One code for numpy and torch arrays, through the array API standard, and functions that the standard lacks.

Nothing here imports torch, since a decoder that uses torch has already imported it.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

Array: TypeAlias = Any
"""A numpy or torch array. Functions return the kind that they were given, which the type cannot express."""


def namespace(array: Array) -> Any:
    """The standard's functions for arrays of this kind."""
    # numpy itself has them since 2.1; importing array_api_compat's wrapper of numpy takes 0.1 s.
    native = isinstance(array, np.ndarray) and hasattr(np, "cumulative_sum")
    return array_namespace(array, use_compat=False if native else None)


def top_k(array: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` largest numbers of each row of (R, C), descending, and their columns, (R, k) each."""
    if is_torch_array(array):
        values, columns = array.topk(k, -1)
        return values, columns
    return _top_k(array, k)


def softmax(array: Array) -> Array:
    """The softmax of each row of (R, C)."""
    if is_torch_array(array):
        return array.softmax(-1)
    powers = np.exp(array - array.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def first_reaching(sums: Array, levels: Array) -> Array:
    """For each ascending row of (R, C), the first column (R,) whose number is not below the row's level (R, 1)."""
    if is_torch_array(sums):
        return namespace(sums).searchsorted(sums, levels)[:, 0].clamp(max=sums.shape[1] - 1)  # NaN would be past it
    return (sums >= levels).argmax(-1)


def _top_k(array: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """``top_k`` for numpy.

    ``argpartition`` of all columns takes longer than a step of a small model. The k largest numbers are in the k groups
    of columns with the largest maxima, and maxima are fast. With groups of about sqrt(C / k) columns, there are few
    maxima and few members of k groups.
    """
    rows, columns = array.shape
    size = int(0.4 * math.sqrt(columns / k))  # the fastest for 4 to 6 of 5,000 columns
    if size < 4:
        found = _largest(array, k)
    else:
        groups = columns // size  # group g has the columns g, g + groups, g + 2 * groups, ...
        best = _largest(array[:, : size * groups].reshape(rows, size, groups).max(1), k)
        best.sort(-1)
        members = (best[:, None] + groups * np.arange(size)[:, None]).reshape(rows, -1)  # (R, size, k), ascending
        rest = np.broadcast_to(np.arange(size * groups, columns), (rows, columns - size * groups))
        members = np.concatenate([members, rest], 1)
        found = np.take_along_axis(members, _largest(np.take_along_axis(array, members, 1), k), 1)
    return np.take_along_axis(array, found, 1), found


def _largest(array: NDArray[Any], k: int) -> NDArray[np.int64]:
    """The columns (R, k) of the ``k`` largest numbers of each row, descending; equal ones in the order of columns."""
    if k > 16:
        found = np.sort(np.argpartition(array, array.shape[1] - k, -1)[:, array.shape[1] - k :], -1)
        order = np.argsort(-np.take_along_axis(array, found, 1), -1, kind="stable")
        return np.take_along_axis(found, order, 1)
    left = np.maximum(array, np.finfo(array.dtype).min)  # above -inf, which marks columns that were found
    rows = np.arange(len(array))
    found = np.empty((len(array), k), np.int64)
    for place in range(k):  # 3 times as fast as argpartition while k is small
        found[:, place] = left.argmax(-1)
        left[rows, found[:, place]] = -np.inf
    return found
