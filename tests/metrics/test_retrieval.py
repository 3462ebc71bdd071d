"""Retrieval scores."""

from __future__ import annotations

import pytest

from captioner.errors import DataError
from captioner.metrics.retrieval import retrieval_scores


def test_retrieval():
    assert retrieval_scores([1, 2, 5, 6, 11]) == {"R@1": 20.0, "R@5": 60.0, "R@10": 80.0, "median rank": 5.0}
    for wrong in ([], [0, 1], [[1]]):
        with pytest.raises(DataError, match="from 1 on"):
            retrieval_scores(wrong)
