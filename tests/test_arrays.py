"""Arrays of numpy and torch: what the standard lacks, and that numpy alone is enough."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from captioner.arrays import first_reaching, top_k
from tests.decoding.fakes import KINDS

WITHOUT_TORCH = """
import sys
import numpy as np
from captioner.decoding import METHODS, DecodingConfig, decode

class Even:
    def step(self, tokens, state):
        return np.log(np.full((len(tokens), 5), 0.2, np.float32)), state
    def select(self, state, rows):
        return state

for method in METHODS:
    config = DecodingConfig(method, num_samples=3, no_repeat_ngram_size=2)
    assert len(decode(Even(), None, 2, config, start=0, end=1)) == 2
assert "torch" not in sys.modules
"""


def of_kind(kind: str, array: np.ndarray) -> np.ndarray | torch.Tensor:
    return array if kind == "numpy" else torch.from_numpy(array)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [1, 3, 16, 97, 500, 1009, 5000])
@pytest.mark.parametrize("k", [1, 4, 7, 50])
def test_the_largest_of_each_row(kind: str, columns: int, k: int) -> None:
    """Against sorting. Would catch columns that belong to no group, and numbers given for another column's."""
    k = min(k, columns)
    rows = np.random.default_rng(columns).normal(size=(9, columns)).astype(np.float32)
    rows[0, -1] = rows[1, 0] = 9.0  # the last column, which may be left over
    rows[2, : columns // 2] = -np.inf
    rows[3] = -np.inf
    rows[4, k // 2 + 1 :] = -np.inf  # fewer than k
    values, places = (np.asarray(part) for part in top_k(of_kind(kind, rows), k))
    assert np.array_equal(values, -np.sort(-rows, 1)[:, :k])
    assert np.array_equal(values, np.take_along_axis(rows, places, 1))
    assert all(len(set(row)) == k for row in places.tolist())


def test_equal_numbers_come_in_the_order_of_their_columns() -> None:
    values, places = top_k(np.array([[2.0, 1.0, 2.0, 0.0, 1.0, 2.0]]), 5)
    assert values.tolist() == [[2.0, 2.0, 2.0, 1.0, 1.0]]
    assert places.tolist() == [[0, 2, 5, 1, 4]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_column_that_reaches_a_level(kind: str) -> None:
    """Would catch a sampled token of probability 0: a column that adds nothing is never the first."""
    sums = of_kind(kind, np.array([[0.0, 0.25, 0.25, 1.0], [0.5, 0.5, 0.75, 0.75]]))
    for levels, expected in (
        ([1e-9, 0.5], [1, 0]),
        ([0.25, 0.6], [1, 2]),
        ([0.26, 0.75], [3, 2]),
        ([1.0, 0.1], [3, 0]),
    ):
        assert first_reaching(sums, of_kind(kind, np.array(levels)[:, None])).tolist() == expected


def test_decoding_with_numpy_needs_no_torch() -> None:
    """Would catch an import of torch at the top of a module, or in what decoding calls."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
