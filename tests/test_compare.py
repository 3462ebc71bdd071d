"""eval.compare and preprocess.sentences: what the README's table and the text-only pre-training rest on."""

from __future__ import annotations

from pathlib import Path

from captioner.data.records import Record
from eval.compare import Row, table
from eval.published import TABLES
from preprocess.sentences import main, photo_number, sentences


def test_seeds_of_one_configuration_share_a_line_and_others_do_not() -> None:
    """Would catch a mean taken over different models, or a spread of one run."""
    rows = [
        Row("4f", "a", 0, (60.0, 40.0, 30.0, 20.0, 0.5)),
        Row("4f", "a", 1, (62.0, 42.0, 32.0, 22.0, 0.6)),
        Row("2f", "b", 0, (50.0, 40.0, 30.0, 20.0, 0.4)),
    ]
    first, second = table(rows)
    assert "21.0 ± 1.4" in first and "0.550 ± 0.071" in first and "| 0, 1 |" in first
    assert "±" not in second and "0.400" in second


def test_published_figures_are_percent_and_fall_with_the_order() -> None:
    """Would catch a typing error that mixes fractions with percent or swaps columns."""
    for entries in TABLES.values():
        for entry in entries:
            known = [value for value in entry.bleu if value is not None]
            assert all(1 < value < 100 for value in known)
            assert known == sorted(known, reverse=True)


def test_excluded_photographs_are_left_out_under_both_their_names() -> None:
    """Would catch a test caption of Flickr8k that is learnt through Flickr30k."""
    records = [
        Record("1000.jpg", None, ("a dog runs",), "train"),
        Record("1001.jpg", None, ("a  cat\nsits",), "train"),
        Record("1002.jpg", None, ("a bird",), "val"),
    ]
    assert sentences(records, "train", {photo_number("1000_693b08cb0e.jpg")}) == ["a cat sits"]


def test_a_missing_data_set_is_one_line(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["--root", str(tmp_path / "none"), "-o", str(tmp_path / "out.txt")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out.txt").exists()
