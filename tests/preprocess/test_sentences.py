"""preprocess.sentences: what the text-only pre-training rests on."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.data.records import Captioned
from preprocess.sentences import main, photo_number, sentences


def test_excluded_photographs_are_left_out_under_both_their_names() -> None:
    """Would catch a test caption of Flickr8k that is learned through Flickr30k."""
    records = [
        Captioned("1000.jpg", None, ("a dog runs",), "train"),
        Captioned("1001.jpg", None, ("a  cat\nsits",), "train"),
        Captioned("1002.jpg", None, ("a bird",), "val"),
    ]
    assert sentences(records, "train", {photo_number("1000_693b08cb0e.jpg")}) == ["a cat sits"]


def test_sentences_never_replace_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch the data set, or the list of what to leave out, replaced by sentences."""
    data, names, output = tmp_path / "captions.tsv", tmp_path / "names.txt", tmp_path / "out.txt"
    data.write_text("1.jpg\tA dog runs.\ttrain\n")
    (tmp_path / "1.jpg").touch()
    names.write_text("2.jpg\n")
    given = ["--root", str(data), "--format", "own", "--exclude", str(names), "-o"]
    for _ in range(2):
        assert main([*given, str(output)]) == 0
    for path, words in ((data, "is the same file as"), (names, "is the same file as")):
        assert main([*given, str(path)]) == 2
        assert words in capsys.readouterr().err
    for text in ("1.jpg\tA dog runs.\n", "2.jpg\n", '{"a": 1}\n'):
        output.write_text(text)
        assert main([*given, str(output)]) == 2
        assert "exists and is not a list of sentences" in capsys.readouterr().err and output.read_text() == text


def test_a_missing_data_set_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path / "none"), "-o", str(tmp_path / "out.txt")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out.txt").exists()


def test_a_list_saved_with_a_byte_order_mark_excludes_its_first_name(tmp_path: Path) -> None:
    """Would catch a test caption that is learned because of an invisible character before the name of its image."""
    for name in ("1000.jpg", "1001.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "captions.tsv").write_text("1000.jpg\ta dog\ttrain\n1001.jpg\ta cat\ttrain\n")
    (tmp_path / "test.txt").write_bytes("\ufeff1000_1.jpg\r\n".encode())
    out = tmp_path / "out.txt"
    options = ["--format", "own", "--root", str(tmp_path), "--exclude", str(tmp_path / "test.txt"), "-o", str(out)]
    assert main(options) == 0
    assert out.read_text() == "a cat\n"
