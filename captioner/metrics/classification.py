"""Scores of classifiers: accuracy with its interval, paired tests, and the confusion matrix.

Truth and predictions are labels by item id; an item may be an image, a clip or anything else. To compare systems of
several runs, such as seeds, pass each run's ``score_labels`` to ``captioner.metrics.significance.compare_systems``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captioner.errors import DataError
from captioner.metrics.base import Array, Scored
from captioner.metrics.corpus import Corpus

Labels = Mapping[Any, str]
"""Name of a class by the id of an item."""
Z = NormalDist().inv_cdf(0.975)
"""Half the width of the central 95 % of the normal distribution, in standard deviations."""


class Accuracy:
    """The share of items with the correct label, as a metric whose "captions" and "references" are single labels."""

    names = ("accuracy",)
    settings = "version:1"

    def statistics(self, corpus: Corpus) -> Array:
        pairs = zip(corpus.hypotheses, corpus.references, strict=True)
        return np.array([[predicted in truth, 1.0] for predicted, truth in pairs])

    def aggregate(self, sums: Array) -> dict[str, Array]:
        return {"accuracy": 100 * sums[..., 0] / sums[..., 1]}


@dataclass(frozen=True)
class Proportion:
    """``correct`` of ``total`` items, with the 95 % interval of Wilson (1927) in percent."""

    correct: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end; within 0 to 100 even if all or none are correct."""
        p, n = self.correct / self.total, self.total
        center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return 100 * max(center - half, 0.0), 100 * min(center + half, 1.0)


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test, from the numbers of items that only one of two systems has right."""

    first_only: int
    second_only: int

    @property
    def p(self) -> float:
        """Two-sided, from the binomial distribution (McNemar 1947, without its normal approximation)."""
        n, fewer = self.first_only + self.second_only, min(self.first_only, self.second_only)
        term = tail = 1  # C(n, 0)
        for k in range(1, fewer + 1):
            term = term * (n - k + 1) // k
            tail += term
        return min(1.0, 2 * tail / (1 << n))


def accuracy(truth: Labels, predicted: Labels) -> Proportion:
    """The share of items that are predicted correctly; raises ``DataError`` unless both have the same ids."""
    _check(truth, predicted)
    return Proportion(sum(predicted[item] == label for item, label in truth.items()), len(truth))


def compare_labels(truth: Labels, first: Labels, second: Labels) -> PairedTest:
    """McNemar's test of two systems' predictions for the same items; raises ``DataError`` unless all ids are equal."""
    _check(truth, first)
    _check(truth, second)
    right = [(first[item] == label, second[item] == label) for item, label in truth.items()]
    return PairedTest(right.count((True, False)), right.count((False, True)))


def confusion_matrix(truth: Labels, predicted: Labels, classes: Sequence[str]) -> NDArray[np.int64]:
    """Items by true class (row) and predicted class (column), (C, C) in the order of ``classes``.

    Raises ``DataError`` unless both have the same ids, and for a label that is not in ``classes``.
    """
    _check(truth, predicted)
    numbers = {name: number for number, name in enumerate(classes)}
    found = np.zeros((len(classes), len(classes)), np.int64)
    for item, label in truth.items():
        for name in (label, predicted[item]):
            if name not in numbers:
                raise DataError(f"{item}: {name} is not one of the {len(classes)} classes")
        found[numbers[label], numbers[predicted[item]]] += 1
    return found


def score_labels(truth: Labels, predicted: Labels, **metadata: str) -> Scored:
    """Accuracy as a ``Scored``, for ``compare_systems``; ``metadata`` is added to its signature (``split="test"``)."""
    _check(truth, predicted)
    corpus = Corpus([predicted[item] for item in truth], [[label] for label in truth.values()])
    metric = Accuracy()
    rows = sorted([str(item), label] for item, label in truth.items())
    data = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:8]
    signature = {"items": str(len(truth)), **metadata, "data": data}
    return Scored(tuple(truth), (metric,), (metric.statistics(corpus),), signature)


def _check(truth: Labels, predicted: Labels) -> None:
    if not truth:
        raise DataError("there are no labels to compare with")
    if truth.keys() != predicted.keys():
        differing = sorted(map(str, truth.keys() ^ predicted.keys()))
        raise DataError(f"labels and predictions differ in {len(differing)} items, such as {', '.join(differing[:3])}")
