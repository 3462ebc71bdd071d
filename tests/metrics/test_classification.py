"""Accuracy, its interval, McNemar's test and the confusion matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest

from captioner.errors import DataError
from captioner.metrics.classification import (
    PairedTest,
    Proportion,
    accuracy,
    compare_labels,
    confusion_matrix,
    score_labels,
)
from captioner.metrics.significance import compare_systems

TRUTH = {"1": "cat", "2": "dog", "3": "cat", "4": "bird"}


def test_accuracy_of_labels_by_id() -> None:
    """Would catch labels compared by place instead of by id."""
    found = accuracy(TRUTH, {"4": "bird", "3": "dog", "2": "dog", "1": "cat"})
    assert (found.correct, found.total, found.percent) == (3, 4, 75.0)


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 29), (78, 100), (9940, 10000)])
def test_interval_is_where_the_score_test_accepts(correct: int, total: int) -> None:
    """Would catch a Wald interval, or a slip in Wilson's formula: its ends solve |p - q| = z sqrt(q (1 - q) / n)."""
    for end in Proportion(correct, total).interval:
        q = end / 100
        distance = abs(correct / total - q)
        assert distance == pytest.approx(1.959963984540054 * math.sqrt(q * (1 - q) / total), abs=1e-8)


def test_interval_of_a_published_example() -> None:
    """Would catch 95 % confounded with another level: Newcombe 1998, table I, 81 of 263 gives 0.2553 to 0.3662."""
    assert Proportion(81, 263).interval == pytest.approx((25.53, 36.62), abs=0.005)


def test_mcnemar_by_counting_all_outcomes() -> None:
    """Would catch a one-sided p-value and a tail that is off by one."""
    for first in range(6):
        for second in range(6):
            n = first + second
            extreme = sum(abs(bin(outcome).count("1") - n / 2) >= abs(first - n / 2) for outcome in range(2**n))
            assert PairedTest(first, second).p == pytest.approx(extreme / 2**n)


def test_mcnemar_of_thousands_of_items_is_finite() -> None:
    """Would catch an overflow of floats: 2**n has thousands of binary digits here."""
    assert PairedTest(4000, 4000).p == 1
    normal = math.erfc((300 - 1) / math.sqrt(2 * 8300))  # with the correction for continuity
    assert PairedTest(4000, 4300).p == pytest.approx(normal, rel=0.01)


def test_comparison_counts_items_that_one_system_has_right() -> None:
    """Would catch the two systems swapped, and items counted that both have right or wrong."""
    first = {"1": "cat", "2": "dog", "3": "dog", "4": "cat"}
    second = {"1": "dog", "2": "dog", "3": "cat", "4": "bird"}
    found = compare_labels(TRUTH, first, second)
    assert (found.first_only, found.second_only) == (1, 2)


def test_confusion_matrix_has_true_classes_in_rows() -> None:
    """Would catch a transposed matrix."""
    found = confusion_matrix(TRUTH, {"1": "dog", "2": "dog", "3": "dog", "4": "bird"}, ["bird", "cat", "dog"])
    assert found.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 1]]


def test_what_does_not_fit_is_named() -> None:
    """Would catch items left out silently, which raises the accuracy of a system that skips the hard ones."""
    with pytest.raises(DataError, match="differ in 1 items, such as 4"):
        accuracy(TRUTH, {"1": "cat", "2": "dog", "3": "cat"})
    with pytest.raises(DataError, match="no labels"):
        accuracy({}, {})
    with pytest.raises(DataError, match="4: bird is not one of the 2 classes"):
        confusion_matrix(TRUTH, TRUTH, ["cat", "dog"])


def test_runs_are_compared_by_the_tests_of_captions() -> None:
    """Would catch statistics that do not add up to the accuracy, and signatures that ignore which item has a label."""
    rng = np.random.default_rng(0)
    truth = {number: str(rng.integers(3)) for number in range(300)}

    def system(share: float) -> dict[int, str]:
        return {item: label if rng.random() < share else "none" for item, label in truth.items()}

    weak, strong = ([score_labels(truth, system(share), split="test") for _ in range(3)] for share in (0.5, 0.8))
    found = compare_systems({"weak": weak, "strong": strong}, resamples=200, trials=200)["strong"]["accuracy"]
    assert found.score == pytest.approx(np.mean([run["accuracy"].value for run in strong]))
    assert found.low < found.score < found.high
    assert found.p_randomization is not None and found.p_randomization < 0.01
    moved = dict(zip(truth, [*list(truth.values())[1:], "0"], strict=True))
    assert "items:300|split:test|data:" in weak[0]["accuracy"].signature
    assert score_labels(moved, moved)["accuracy"].signature != score_labels(truth, truth)["accuracy"].signature
