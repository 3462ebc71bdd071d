"""Sections of a report about classes: the confusion matrix, the most frequent confusions, and scores by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from captioner.metrics.classification import Proportion
from eval import figures
from eval.page import Block, Figure, Heading, Table

CONFUSIONS = 10  # pairs of classes that are listed


def confusion(matrix: NDArray[np.int64], classes: Sequence[str], name: str = "confusion") -> list[Block]:
    """The confusion matrix (C, C), true classes in rows, as a figure with the most frequent confusions below it.

    ``name`` is the stem of the figure's file; a page with several matrices needs different names.
    """
    caption = "Rows are the true classes, columns the predicted ones; the shade is the share of the row."
    pairs = confused_pairs(matrix, classes)
    blocks: list[Block] = [Heading("Confusion matrix"), Figure(name, figures.confusion(matrix, classes), caption)]
    if pairs:
        rows = [[true, predicted, str(count), f"{share:.1f}"] for true, predicted, count, share in pairs]
        blocks.append(Table(["true", "predicted", "items", "% of the class"], rows, left=2))
    return [*blocks, Heading("Classes", 3), _table(matrix, classes)]


def confused_pairs(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """The most frequent confusions: true class, predicted class, number of items, and percent of the true class."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    places = [divmod(int(place), len(classes)) for place in order]
    totals = matrix.sum(1)
    return [
        (classes[row], classes[column], int(wrong[row, column]), 100 * float(wrong[row, column] / totals[row]))
        for row, column in places
        if wrong[row, column]
    ]


def _table(matrix: NDArray[np.int64], classes: Sequence[str]) -> Table:
    """Recall with its interval, and precision, of each class; a dash where the denominator is 0."""
    rows = []
    for number, name in enumerate(classes):
        correct, true, predicted = (
            int(n) for n in (matrix[number, number], matrix[number].sum(), matrix[:, number].sum())
        )
        recall = "–"
        if true:
            one = Proportion(correct, true)
            low, high = one.interval
            recall = f"{one.percent:.1f}\n[{low:.1f}, {high:.1f}]"
        rows.append([name, str(true), recall, f"{100 * correct / predicted:.1f}" if predicted else "–"])
    return Table(["class", "items", "recall (%)", "precision (%)"], rows)
