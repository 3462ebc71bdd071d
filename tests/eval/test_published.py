"""eval.published: papers' numbers as data."""

from __future__ import annotations

import pytest
import yaml

from captioner.errors import UsageError
from eval.published import FOLDER, NAMES, Row, Setting, Table, differences, read_tables

TASKS = {"captions", "caption to image", "image to caption", "video description", "activity recognition"}
OURS = Setting("test", 1000, "ptb-lite", "5", "torchvision:vgg16@fc8")


def every() -> list[tuple[str, Table]]:
    return [(name, table) for name in NAMES for task in TASKS for table in read_tables(name, task)]


def test_every_entry_of_every_file_is_read() -> None:
    """Would catch a file or a task that no report can show."""
    entries = [entry for path in FOLDER.glob("*.yaml") for entry in yaml.safe_load(path.read_text())["tables"]]
    assert len(every()) == len(entries) and {entry["task"] for entry in entries} == TASKS
    assert all(table.source.startswith("https://") and table.rows for _, table in every())


def test_numbers_are_percent_and_bleu_falls_with_its_order() -> None:
    """Would catch a fraction taken for a percentage, swapped columns and a digit lost in typing."""
    for _, table in every():
        for row in table.rows:
            known = [value for value in row.values.values() if value is not None]
            assert known and all(1 < value < 100 for value in known), row
            bleu = [value for name, value in row.values.items() if name.startswith("BLEU") and value is not None]
            recall = [value for name, value in row.values.items() if name.startswith("R@") and value is not None]
            assert bleu == sorted(bleu, reverse=True) and recall == sorted(recall), row


@pytest.mark.parametrize(
    ("name", "task", "paper", "system", "values"),
    [
        ("coco", "captions", "v4", "RNN 2f", [63.8, 45.4, 31.5, 22.0, 66.0, 20.9, 47.3]),
        ("coco", "captions", "CVPR", "LRCN", [66.86, 48.92, 34.89, 24.92]),
        ("flickr30k", "captions", "CVPR", "m-RNN", [54.79, 23.92, 19.52, None]),
        ("flickr30k", "image to caption", "CVPR", "LRCN 2f", [23.6, 46.6, 58.3, 7]),
        ("flickr8k", "captions", "ICML", "Hard attention", [67, 45.7, 31.4, 21.3]),
        ("tacos", "video description", "v4", "(c) LSTM decoder", [28.8]),
        ("ucf101", "activity recognition", "v4", "LRCN-fc6", [68.20, 77.28, 80.90, 82.34]),
    ],
)
def test_cells_as_the_papers_print_them(
    name: str, task: str, paper: str, system: str, values: list[float | None]
) -> None:
    """Would catch a row under another paper, task or metric."""
    tables = [table for table in read_tables(name, task) if paper in table.paper]
    assert values in [list(row.values.values()) for table in tables for row in table.rows if row.system == system]


def test_what_differs_is_said_and_nothing_else() -> None:
    """Would catch two numbers set side by side that were made in different ways."""
    row = Row("x", {"BLEU-4": 20.0}, "VGG")
    table = Table("captions", "P", "table 1", "https://", "Flickr8k test", "test", 1000, 5, "coco-caption", (row,))
    assert differences(table, row, OURS) == []
    other = Setting("val", 1000, "plain", "4", "compact")
    said = " ".join(differences(table, row, other))
    assert all(word in said for word in ("tokenizer", "split", "references: 5 there, 4 here", "CNN: VGG"))
    assert "not stated" in differences(read_tables("flickr8k")[0], row, OURS)[0]
    assert differences(table, row, Setting("test", 1000, "ptb-lite", "5-7", "vgg")) == []


def test_an_unknown_data_set_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(UsageError, match="flickr8k"):
        read_tables("nocaps")
