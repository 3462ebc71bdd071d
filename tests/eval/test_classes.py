"""eval.classes: the confusion matrix and the scores of each class as blocks of a page."""

from __future__ import annotations

import numpy as np

from eval.classes import confused_pairs, confusion
from eval.page import Figure, to_html, to_markdown
from tests.eval.html_reader import Reader

MATRIX = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
CLASSES = ["cat", "dog & co", "bird"]


def test_confusions_are_read_from_rows_to_columns() -> None:
    """Would catch a transposed matrix, right answers among the confusions, and a share of the wrong class."""
    assert confused_pairs(MATRIX, CLASSES) == [("cat", "dog & co", 2, 20.0), ("dog & co", "cat", 1, 10.0)]


def test_the_section_is_a_figure_and_two_tables() -> None:
    """Would catch a class without items dividing by zero, and names that break the figure's markup."""
    blocks = confusion(MATRIX, CLASSES)
    (figure,) = [block for block in blocks if isinstance(block, Figure)]
    for text in (">8<", ">9<", "dog &amp; co", ">predicted<"):
        assert text in figure.svg
    assert ">0<" not in figure.svg  # empty cells stay empty
    page = Reader(to_html("t", blocks))
    assert [tag for tag, _ in page.seen].count("table") == 2
    lines = to_markdown("t", blocks).splitlines()
    assert [cell.strip() for cell in lines[-3].split("|")[1:-1]] == ["cat", "10", "80.0 [49.0, 94.3]", "88.9"]
    assert [cell.strip() for cell in lines[-1].split("|")[1:-1]] == ["bird", "0", "–", "–"]


def test_many_classes_fit_into_the_figure() -> None:
    """Would catch a figure that grows with the number of classes, or that writes ten thousand counts."""
    classes = [f"class {number}" for number in range(101)]
    (_, figure, *_) = confusion(np.full((101, 101), 3), classes)
    assert isinstance(figure, Figure)
    assert ">3<" not in figure.svg and "class 100" in figure.svg and len(figure.svg) < 500_000


def test_perfect_predictions_have_no_table_of_confusions() -> None:
    """Would catch an empty table, or confusions of zero items."""
    blocks = confusion(np.diag([5, 5]), ["a", "b"])
    assert [type(block).__name__ for block in blocks] == ["Heading", "Figure", "Heading", "Table"]
