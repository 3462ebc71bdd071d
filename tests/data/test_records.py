"""Records of data sets: class names keep their order, and splits are found by any usual name."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from captioner.data.records import Captioned, ClassNames, Images, of_split, read_json, split_name
from captioner.errors import DataError


def test_class_names_keep_their_order() -> None:
    """Would catch sorted names, which would exchange the outputs of a classifier."""
    names = ClassNames(("zebra", "ant", "cat"))
    assert ClassNames.from_list(json.loads(json.dumps(names.to_list()))) == names
    assert (list(names), len(names), names[1], names.number("cat")) == (["zebra", "ant", "cat"], 3, "ant", 2)
    with pytest.raises(DataError, match="no class 'dog' among the 3 classes"):
        names.number("dog")


@pytest.mark.parametrize(("names", "message"), [([], "no class names"), (["a", "b", "a"], "'a' occurs twice")])
def test_wrong_class_names_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ClassNames.from_list(names)


def test_splits_are_found_by_any_usual_name() -> None:
    records = [Captioned(f"{split}.jpg", None, ("A dog.",), split) for split in ("train", "val")]
    assert [record.image_id for record in of_split(records, "dev")] == ["val.jpg"]
    with pytest.raises(DataError, match="no images in split test; the data set has: train 1, val 1, test 0"):
        of_split(records, "test")
    with pytest.raises(DataError, match="unknown split 'exam'"):
        split_name("exam", "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "a number with too many digits"),
        ('[{"a": "\\ud83d"}]', "ud83d is half a character"),
        ('{"a\\udc00": 1}', "udc00 is half a character"),
        ("[1,\n2", "line 2: not valid JSON"),
    ],
)
def test_json_that_cannot_be_used_is_one_kind_of_error(tmp_path: Path, text: str, message: str) -> None:
    """Would catch a traceback: from the parser, or much later, when half a character is printed or written."""
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path)) and len(str(caught.value)) < 300
    path.write_text('\ufeff{"a": "\\ud83d\\ude00"}', encoding="utf-8")
    assert read_json(path) == {"a": "😀"}


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_an_accent_may_be_written_in_two_ways(tmp_path: Path, on_disk: str, asked: str) -> None:
    """Would catch ``café.jpg is not there; did you mean café.jpg?`` for files that were copied from a Mac."""
    path = tmp_path / unicodedata.normalize(on_disk, "été/café.jpg")
    path.parent.mkdir()
    path.touch()
    images = Images(tmp_path)
    assert images.find(unicodedata.normalize(asked, "été/café.jpg")) == path
    for name in ("été/thé.jpg", "thé/café.jpg", "é\0.jpg", "é" * 300, "\ud800é"):
        assert images.find(name) is None


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.jpg", "b/../../a.jpg"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """Would catch a data set whose names make other files of the machine be read."""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "images" / "b").mkdir(parents=True)
    assert Images(tmp_path / "images").find(name) is None
