"""Your own data: what works, and one explained error for each way to get it wrong (docs/own-data.md lists them)."""

import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from captioner.data import read_dataset, records
from captioner.data.readers import own
from captioner.data.readers.own import split_of
from captioner.errors import CaptionerError, DataError
from tests.conftest import CHECKOUT


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg", "c d.png", "sub/e.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write(folder, text, name="captions.tsv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_tsv_with_splits(folder):
    text = (
        "\ufeffimage\tcaption\tsplit\r\na.jpg\tA  dog.\ttrain\r\nsub/e.jpg\tA hat.\tdev\r\n\r\na.jpg\tOne dog.\ttrain"
    )
    a, e = read_dataset("own", write(folder, text))
    assert (a.image_id, a.captions, a.split, a.path) == ("a.jpg", ("A dog.", "One dog."), "train", folder / "a.jpg")
    assert (e.image_id, e.split) == ("sub/e.jpg", "val")


def test_jsonl_is_tsv_in_other_words(folder):
    lines = '{"image": "a.jpg", "captions": ["A dog.", "One dog."], "split": "train", "author": "me"}\n'
    lines += '{"image": "c d.png", "caption": "A hat.", "split": "test"}\n'
    a, c = read_dataset("own", write(folder, lines, "captions.jsonl"))
    assert (a.captions, a.split, c.image_id, c.split) == (("A dog.", "One dog."), "train", "c d.png", "test")
    assert read_dataset("own", folder / "captions.jsonl") == [a, c]


def test_images_in_a_folder_of_their_own(folder):
    """Ids are names below the images' folder, as in a feature store, whichever way the file writes them."""
    (folder / "images").mkdir()
    (folder / "images" / "x.jpg").touch()
    (folder / "images" / "y.jpg").touch()
    x, y = read_dataset("own", write(folder, "images/x.jpg\tA dog.\ttrain\ny.jpg\tA hat.\ttrain"))
    assert (x.image_id, y.image_id) == ("x.jpg", "y.jpg")
    assert x.path == folder / "images" / "x.jpg"


GOLDEN_SPLITS = ["train", "test", "train", "train", "train", "val", *["train"] * 4]  # regression only


def test_splits_by_name_are_80_10_10_and_stay(tmp_path):
    """An image that moves to another split when others are added would leak test images into training."""
    names = [f"{n}.jpg" for n in range(2000)]
    counts = Counter(map(split_of, names))
    assert counts["train"] == pytest.approx(1600, abs=60)
    assert counts["val"] == pytest.approx(200, abs=45)
    assert [split_of(f"{n}.jpg") for n in range(10)] == GOLDEN_SPLITS
    for name in names[:30]:
        (tmp_path / name).touch()
    records = read_dataset("own", write(tmp_path, "".join(f"{n}\tA dog.\n" for n in names[:30])))
    assert {r.image_id: r.split for r in records} == {n: split_of(n) for n in names[:30]}


MISTAKES = {
    "one column": ("a.jpg A dog.\n", "line 1: expected image<TAB>caption .* found 1 column; part .* by one tab"),
    "four columns": ("a.jpg\tA\tdog\tx\n", "line 1: expected .* found 4 columns; a caption must not hold a tab"),
    "missing image": ("a.jpg\tA dog.\nB.jpg\tA hat.\n", "the image B.jpg is not in .*; did you mean b.jpg"),
    "several missing": ("x\tA dog.\ny\tA hat.\n", "the image x and 1 more is not in"),
    "no suffix": ("sub/e\tA dog.\n", "the image sub/e is not in .*; did you mean sub/e.jpg"),
    "backslash": ("sub\\e.jpg\tA dog.\n", r"did you mean sub/e.jpg\?"),
    "empty caption": ("a.jpg\tA dog.\nb.jpg\t \n", "line 2: the caption of b.jpg is empty"),
    "no name": ("\tA dog.\n", "line 1: the image's name is empty"),
    "same row twice": (
        "a.jpg\tA dog.\na.jpg\tA dog.\n",
        "line 2: the same image and caption as .*line 1; remove one",
    ),
    "unknown split": ("a.jpg\tA dog.\ttrian\n", "line 1: unknown split 'trian'; use train, val or test"),
    "two splits": ("a.jpg\tA.\ttrain\na.jpg\tB.\ttest\n", "line 2: a.jpg is in test, but .*line 1 puts it in train"),
    "some without": ("a.jpg\tA.\ttrain\nb.jpg\tB.\n", "line 2: b.jpg has no split but other images have"),
    "empty file": ("\n", "holds no captions"),
    "only a header": ("image\tcaption\n", "holds no captions"),
    "not UTF-8": (b"a.jpg\tA dog.\nb.jpg\tUn caf\xe9\n", "line 2: not UTF-8 text; save the file"),
    "outside": ("../a.jpg\tA dog.\n", "line 1: ../a.jpg leads out of the folder"),
    "absolute": ("/home/me/a.jpg\tA dog.\n", "line 1: /home/me/a.jpg leads out of the folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_tsv(folder, mistake):
    text, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=message) as caught:
        read_dataset("own", write(folder, text))
    assert "\n" not in str(caught.value)


JSON_MISTAKES = {
    "bad JSON": ('{"image": "a.jpg", "caption": "A"}\n{"image": }\n', "line 2: not valid JSON: .* at character 11"),
    "a list": ("[1]\n", "line 1: expected an object such as"),
    "no caption": ('{"image": "a.jpg"}\n', "line 1: needs either caption"),
    "both": ('{"image": "a.jpg", "caption": "A", "captions": ["B"]}\n', "line 1: needs either caption"),
    "a number": ('{"image": "a.jpg", "caption": 3}\n', "line 1: a caption is a text in quotes"),
    "empty list": ('{"image": "a.jpg", "captions": []}\n', "line 1: a caption is a text in quotes"),
    "text for list": ('{"image": "a.jpg", "captions": "A dog"}\n', "line 1: a caption is a text in quotes"),
    "no image": ('{"caption": "A"}\n', "line 1: image and split are texts"),
    "wrong key": ('{"images": "a.jpg", "caption": "A"}\n', "line 1: unknown key 'images'; did you mean image"),
    "empty caption": ('{"image": "a.jpg", "captions": ["A", ""]}\n', "line 1: the caption of a.jpg is empty"),
}


@pytest.mark.parametrize("mistake", JSON_MISTAKES)
def test_mistakes_in_json_lines(folder, mistake):
    text, message = JSON_MISTAKES[mistake]
    with pytest.raises(DataError, match=message):
        read_dataset("own", write(folder, text, "captions.jsonl"))


def test_mistakes_about_the_file(folder):
    with pytest.raises(DataError, match=r"no captions.tsv or captions.jsonl here; put"):
        read_dataset("own", folder)
    write(folder, "a.jpg,A dog.\n", "captions.csv")
    with pytest.raises(DataError, match=r"no captions.tsv or captions.jsonl here \(there is captions.csv\)"):
        read_dataset("own", folder)
    with pytest.raises(DataError, match=r"must be in a .tsv or .jsonl file"):
        read_dataset("own", folder / "captions.csv")
    write(write(folder, ""), "", "captions.jsonl")
    with pytest.raises(DataError, match="holds both"):
        read_dataset("own", folder)


def test_the_page_explains_each_message():
    """docs/own-data.md must not fall behind the code."""
    page = CHECKOUT.joinpath("docs", "own-data.md").read_text(encoding="utf-8")
    source = "".join(Path(module.__file__).read_text(encoding="utf-8") for module in (own, records))
    phrases = [
        "holds no captions", "leads out of the folder", "the captions must be in a .tsv or .jsonl file", "holds both",
        "has no split but other images have", "no training images among so few", "needs either caption",
        "a caption is a text in quotes", "image and split are texts in quotes", "unknown key", "did you mean",
        "the image's name is empty", "not valid JSON", "expected an object such as",
        "the same image and caption as",
    ]  # fmt: skip
    assert [phrase for phrase in phrases if phrase not in page or phrase not in source] == []


def test_too_few_images_for_splits_by_name(folder):
    name = next(f"{n}.jpg" for n in range(100) if split_of(f"{n}.jpg") != "train")
    (folder / name).touch()
    with pytest.raises(CaptionerError, match="no training images among so few; name a split in a third column"):
        read_dataset("own", write(folder, f"{name}\tA dog.\n"))


def test_names_are_equal_however_accents_are_written(tmp_path):
    """Would catch an image that is not found, or whose split depends on the disk that it lies on."""
    splits = []
    for form in ("NFC", "NFD"):
        folder = tmp_path / form
        folder.mkdir()
        on_disk = unicodedata.normalize(form, "café.jpg")
        (folder / on_disk).touch()
        lines = [f"{unicodedata.normalize(name, 'café.jpg')}\t{name}\n" for name in ("NFC", "NFD")]
        (folder / "captions.tsv").write_text("".join(lines), encoding="utf-8")
        [record] = read_dataset("own", folder)
        assert (record.image_id, record.captions) == (on_disk, ("NFC", "NFD"))
        splits.append(split_of(record.image_id))
    assert splits == ["train", "train"]


def test_capitals_are_hinted_at(folder):
    (folder / "captions.tsv").write_text("A.JPG\ta dog\n")
    with pytest.raises(DataError, match="the image A.JPG is not in .*; did you mean a.jpg\\?"):
        read_dataset("own", folder)
