"""Blocking of repeated n-grams."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.decoding.ngram_blocking import block_repeated_ngrams
from tests.decoding.fakes import KINDS


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.integers(0, 7).flatmap(
        lambda length: st.lists(st.lists(st.integers(0, 3), min_size=length, max_size=length), min_size=1, max_size=3)
    ),
    size=st.integers(0, 4),
)
def test_exactly_repeating_tokens_are_blocked(kind: str, rows: list[list[int]], size: int) -> None:
    """Against the definition: a token is blocked if the n-gram that it would end is already there."""
    ids = torch.tensor(rows, dtype=torch.int64)
    log_probs = torch.zeros(len(rows), 5)  # token 4 is never blocked
    given = (log_probs.numpy(), ids.numpy()) if kind == "numpy" else (log_probs, ids)
    found = block_repeated_ngrams(*given, size)
    for row, allowed in zip(rows, (found == 0).tolist(), strict=True):
        seen = {tuple(row[i : i + size]) for i in range(len(row) - size + 1)} if size else set()
        assert allowed == [tuple([*row, token][len(row) + 1 - size :]) not in seen for token in range(5)]


def test_a_row_with_nothing_else_possible_is_left_alone() -> None:
    """Would catch a row of -inf only, and changes to the caller's tensor."""
    log_probs = torch.full((2, 4), -math.inf)
    log_probs[0, 3], log_probs[1, 2:] = -1.0, -2.0  # after 3 only 3 may come; after 2 both 2 and 3
    before = log_probs.clone()
    allowed = block_repeated_ngrams(log_probs, torch.tensor([[3, 3], [2, 2]]), 2)
    assert allowed.tolist() == [before[0].tolist(), [-math.inf] * 3 + [-2.0]]
    assert torch.equal(log_probs, before)
