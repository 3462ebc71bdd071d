"""Readers of the public data sets, on small files made like them and on the real ones."""

import json
from collections import Counter

import pytest

from captioner.data import READERS, read_dataset, read_sentences
from captioner.data.readers.own import split_of
from captioner.data.records import of_split, split_name
from captioner.errors import DataError


@pytest.fixture
def flickr8k(tmp_path):
    """Four images in three lists, with what the real files hold: the odd name, blanks, an image in no list."""
    tokens = [
        "a.jpg#0\tA dog .",
        "a.jpg#1\tOne dog .",
        "b.jpg#0\tA cat .",
        "c.jpg.1#0\tpeople waiting",
        "d.jpg#0\tA hat .",
    ]
    (tmp_path / "Flickr8k.token.txt").write_bytes("\ufeff".encode() + "\r\n".join(tokens).encode() + b"\r\n")
    for name, images in (("train", "a.jpg\r\n\r\n"), ("dev", "b.jpg\n"), ("test", "c.jpg")):
        (tmp_path / f"Flickr_8k.{name}Images.txt").write_text(images)
    (tmp_path / "Flicker8k_Dataset").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "Flicker8k_Dataset" / name).touch()
    return tmp_path


def test_flickr8k(flickr8k):
    """Catches: a byte-order mark in the first name, line ends in captions, the slip ``.jpg.1``, an absent image."""
    a, b, c = read_dataset("flickr8k", flickr8k)
    assert (a.image_id, a.split, a.captions) == ("a.jpg", "train", ("A dog .", "One dog ."))
    assert a.path == flickr8k / "Flicker8k_Dataset" / "a.jpg"
    assert (b.split, c.split) == ("val", "test")
    assert c.captions == ("people waiting",)
    assert c.path is None


def test_flickr8k_damage_is_explained(flickr8k):
    with pytest.raises(DataError, match=r"no caption file of Flickr8k here; looked for Flickr8k.token.txt"):
        read_dataset("flickr8k", flickr8k / "Flicker8k_Dataset")
    with pytest.raises(DataError, match="no such folder"):
        read_dataset("flickr8k", flickr8k / "nowhere")
    (flickr8k / "Flickr_8k.devImages.txt").write_text("a.jpg\n")
    with pytest.raises(DataError, match=r"a\.jpg is both in the train and the val list"):
        read_dataset("flickr8k", flickr8k)
    (flickr8k / "Flickr_8k.devImages.txt").write_text("e.jpg\n")
    with pytest.raises(DataError, match=r"no caption for e\.jpg"):
        read_dataset("flickr8k", flickr8k)
    (flickr8k / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog\na.jpg A dog\n")
    with pytest.raises(DataError, match=r"token\.txt, line 2: expected"):
        read_dataset("flickr8k", flickr8k)
    (flickr8k / "Flickr8k.token.txt").write_bytes(b"a.jpg#0\tA dog\na.jpg#1\tA caf\xe9\n")
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        read_dataset("flickr8k", flickr8k)


KAGGLE = """image,caption
1000268201_a.jpg,A child in a pink dress is climbing up a set of stairs .
1000268201_a.jpg,"A child , who says "" hello "" , climbs ."
1001773457_b.jpg,Two dogs .
1001773457_b.jpg,
1002674143_c.jpg,"A girl
paints ."
"""


@pytest.fixture
def kaggle(tmp_path):
    (tmp_path / "captions.txt").write_bytes("\ufeff".encode() + KAGGLE.replace("\n", "\r\n").encode())
    (tmp_path / "Images").mkdir()
    (tmp_path / "Images" / "1000268201_a.jpg").touch()
    return tmp_path


def test_kaggle_s_flickr8k(kaggle):
    """Catches: the heading as an image, quotes and commas in captions, a split that nobody chose."""
    records = {record.image_id: record for record in read_dataset("flickr8k-kaggle", kaggle)}
    a, b, c = (records[name] for name in ("1000268201_a.jpg", "1001773457_b.jpg", "1002674143_c.jpg"))
    assert a.captions[1] == 'A child , who says " hello " , climbs .'
    assert (len(a.captions), b.captions, c.captions) == (2, ("Two dogs .",), ("A girl paints .",))
    assert a.path == kaggle / "Images" / "1000268201_a.jpg"
    assert all(record.split == split_of(name) for name, record in records.items())
    with pytest.raises(DataError, match=r"captions.txt: Kaggle's copy has no split; put Flickr_8k.trainImages.txt, "):
        read_dataset("flickr8k", kaggle)


def test_kaggle_s_flickr8k_with_the_official_lists(kaggle):
    (kaggle / "Flickr_8k.testImages.txt").write_text("1000268201_a.jpg\n")
    for name in ("flickr8k", "flickr8k-kaggle"):
        with pytest.raises(DataError, match="no train list of Flickr8k here; looked for Flickr_8k.trainImages.txt"):
            read_dataset(name, kaggle)
    (kaggle / "Flickr_8k.trainImages.txt").write_text("1001773457_b.jpg\n")
    (kaggle / "Flickr_8k.devImages.txt").write_text("1002674143_c.jpg\n")
    for name in ("flickr8k", "flickr8k-kaggle"):
        assert [(r.image_id[0:4], r.split) for r in read_dataset(name, kaggle)] == [
            ("1001", "train"), ("1002", "val"), ("1000", "test")
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,a dog\n", r"line 1: expected the heading image,caption, found 'a.jpg,a dog'"),
        ("image,caption\na.jpg,a dog, a cat\n", "line 2: expected image,caption; put a caption with commas"),
        ("image,caption\n,a dog\n", "line 2: expected image,caption"),
        ('image,caption\na.jpg,"a dog\n', "line 2: unexpected end of data"),
    ],
)
def test_damage_of_kaggle_s_flickr8k_is_explained(kaggle, text, message):
    (kaggle / "captions.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_dataset("flickr8k-kaggle", kaggle)


def karpathy(path, *images):
    items = [
        {"filename": f, "split": s, "sentences": [{"raw": " A dog. "}, {"raw": "  "}], **more} for f, s, more in images
    ]
    path.write_text(json.dumps({"images": items}))
    return path


def test_flickr30k_of_lists_and_of_karpathy(tmp_path):
    (tmp_path / "results_20130124.token").write_text(
        "1.jpg#0\tA dog .\n1.jpg#1\t\n2.jpg#0\tA cat .\n3.jpg#0\tA hat .\n"
    )
    for split, name in (("train", "1.jpg"), ("val", "2"), ("test", "3.jpg")):
        (tmp_path / f"split_karpathy_{split}.txt").write_text(f"{name}\n")
    records = read_dataset("flickr30k", tmp_path)
    assert [(r.image_id, r.split) for r in records] == [("1.jpg", "train"), ("2.jpg", "val"), ("3.jpg", "test")]
    assert records[0].captions == ("A dog .",)
    karpathy(tmp_path / "dataset_flickr30k.json", ("9.jpg", "val", {}))
    assert [r.image_id for r in read_dataset("flickr30k", tmp_path)] == ["9.jpg"]


def test_karpathy_s_coco(tmp_path):
    """Catches: restval left out of training, images looked for without ``filepath``, numbers lost."""
    folder = tmp_path / "images" / "val2014"
    folder.mkdir(parents=True)
    (folder / "COCO_val2014_000000000042.jpg").touch()
    extra = {"filepath": "val2014", "cocoid": 42}
    path = karpathy(tmp_path / "dataset_coco.json", ("COCO_val2014_000000000042.jpg", "restval", extra))
    for root in (tmp_path, path):
        (record,) = read_dataset("karpathy", root)
        assert (record.split, record.number, record.captions) == ("train", 42, ("A dog.",))
        assert record.path == folder / "COCO_val2014_000000000042.jpg"


def test_karpathy_damage_is_explained(tmp_path):
    with pytest.raises(DataError, match="expected one Karpathy file, found none of"):
        read_dataset("karpathy", tmp_path)
    path = karpathy(tmp_path / "dataset.json", ("a.jpg", "tset", {}))
    with pytest.raises(DataError, match="image 0: unknown split 'tset'; use train, val or test"):
        read_dataset("karpathy", path)
    path.write_text('{"images": [{"filename": "a.jpg"}]}')
    with pytest.raises(DataError, match=r"image 0 \(a.jpg\): needs filename, split and sentences"):
        read_dataset("karpathy", path)
    path.write_text('{"annotations": []}')
    with pytest.raises(DataError, match="no list 'images'"):
        read_dataset("karpathy", path)
    path.write_text('{"images": [\n}')
    with pytest.raises(DataError, match="line 2: not valid JSON"):
        read_dataset("karpathy", path)


@pytest.mark.parametrize("wrong", ["Infinity", "true", "[" * 900 + "]" * 900, "1" + "0" * 4000 + ".5", "{}"])
@pytest.mark.parametrize("key", ["cocoid", "filename", "split", "sentences", "filepath", "raw"])
def test_karpathy_values_of_another_type_are_explained_in_a_short_line(tmp_path, key, wrong):
    """Would catch a traceback, or a value of thousands of characters in the message."""
    values = {"filename": '"a.jpg"', "split": '"test"', "sentences": '[{"raw": "A dog."}]'}
    values |= {"sentences": f'[{{"raw": {wrong}}}]'} if key == "raw" else {key: wrong}
    path = tmp_path / "dataset.json"
    image = ", ".join(f'"{name}": {value}' for name, value in values.items())
    path.write_text(f'{{"images": [{{{image}}}]}}')
    with pytest.raises(DataError, match=r"image 0( \(a.jpg\))?: (needs filename|cocoid must be)") as caught:
        read_dataset("karpathy", path)
    assert len(str(caught.value)) < 400


def coco(path, numbers):
    path.parent.mkdir(exist_ok=True)
    images = [{"id": n, "file_name": f"{n:012d}.jpg"} for n in numbers]
    annotations = [{"id": 10 * n, "image_id": n, "caption": "A dog.\n"} for n in numbers]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_coco(tmp_path, capsys):
    """Catches: pycocotools' own printing on stdout, splits by file, images' folders."""
    pytest.importorskip("pycocotools")
    coco(tmp_path / "annotations" / "captions_train2017.json", [5, 3])
    val = coco(tmp_path / "annotations" / "captions_val2017.json", [7])
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "000000000007.jpg").touch()
    records = read_dataset("coco", tmp_path)
    assert [(r.image_id, r.number, r.split) for r in records] == [
        ("000000000003.jpg", 3, "train"), ("000000000005.jpg", 5, "train"), ("000000000007.jpg", 7, "val")
    ]  # fmt: skip
    assert records[2].captions == ("A dog.",)
    assert records[2].path == tmp_path / "val2017" / "000000000007.jpg"
    assert read_dataset("coco", val) == records[2:]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("images", "annotations", "expected"),
    [
        ([{"id": 2}, {"id": 1}], [(1, "A."), (2, "B.")], [("1", 1, ("A.",)), ("2", 2, ("B.",))]),
        (None, [(2, "B."), (1, "A."), (2, "C.")], [("1", 1, ("A.",)), ("2", 2, ("B.", "C."))]),
        ([], [(1, "A.")], [("1", 1, ("A.",))]),
        ([{"id": "x"}], [("x", "A.")], [("x", "x", ("A.",))]),
        (None, [("x", "B."), (3, "A.")], [("3", 3, ("A.",)), ("x", "x", ("B.",))]),
        ([{"id": "x", "file_name": "a.jpg"}], [("x", "A.")], [("a.jpg", "x", ("A.",))]),
        ([{"id": 1, "file_name": "a.jpg"}], [(1, "A."), (2, "B.")], [("a.jpg", 1, ("A.",)), ("2", 2, ("B.",))]),
        ([{"id": 1}, {"id": 2}], [(1, "A.")], [("1", 1, ("A.",)), ("2", 2, ())]),
    ],
)
def test_coco_needs_only_ids_and_captions(tmp_path, images, annotations, expected):
    """As coco-caption does; catches a reader that wants images, file names, annotation ids or numbers."""
    pytest.importorskip("pycocotools")
    content = {"annotations": [{"image_id": image, "caption": text} for image, text in annotations]}
    if images is not None:
        content["images"] = images
    path = tmp_path / "references.json"
    path.write_text(json.dumps(content))
    assert [(r.image_id, r.number, r.captions) for r in read_dataset("coco", path)] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": [{"caption": "a"}]}, "annotation 0: .*needs image_id"),
        ({"annotations": [{"image_id": None, "caption": "a"}]}, "annotation 0: .*needs image_id"),
        (
            {"annotations": [{"image_id": 1, "caption": "a"}, {"image_id": 7, "caption": None}]},
            "annotation 1, of image_id 7: its caption is null, not a text; remove the annotation",
        ),
        ({"annotations": [3]}, "annotation 0"),
        ({"annotations": {}}, "a list 'annotations'"),
        ({"images": {"1": 2}, "annotations": []}, "a list 'annotations'"),
        ({"images": [{"file_name": "a.jpg"}], "annotations": []}, "image 0: needs id"),
        ({"images": [{"id": 1}, {"id": "1"}], "annotations": []}, "two images are called 1"),
    ],
)
def test_coco_annotations_of_another_shape_are_explained(tmp_path, content, message):
    pytest.importorskip("pycocotools")
    path = tmp_path / "references.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_dataset("coco", path)


def test_coco_damage_is_explained(tmp_path):
    pytest.importorskip("pycocotools")
    with pytest.raises(DataError, match="no caption annotations here"):
        read_dataset("coco", tmp_path)
    path = tmp_path / "instances_val2017.json"
    path.write_text('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"id": 1, "image_id": 1}]}')
    with pytest.raises(DataError, match="not COCO caption annotations"):
        read_dataset("coco", path)
    for text in ("[]", "{}", '{"images": [], "annotations": []}'):
        path.write_text(text)
        with pytest.raises(DataError, match="not COCO caption annotations"):
            read_dataset("coco", path)
    path.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        read_dataset("coco", path)
    coco(tmp_path / "captions_val2014.json", [1])
    coco(tmp_path / "captions_val2017.json", [1])
    with pytest.raises(DataError, match="of 2014 and of 2017"):
        read_dataset("coco", tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_explains_a_missing_folder(name, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such"):
        read_dataset(name, tmp_path / "nowhere")


def test_unknown_formats_and_splits():
    with pytest.raises(
        DataError, match="no data set format 'flickr'; did you mean flickr8k\\? choose one of flickr8k, "
    ):
        read_dataset("flickr", ".")
    assert [split_name(n, "") for n in ("Train", "dev", "validation", "restval")] == ["train", "val", "val", "train"]
    with pytest.raises(DataError, match="no images in split test; the data set has: train 0, val 0, test 0"):
        of_split([], "test")


def test_sentences(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffA dog.\r\n\r\n A cat\u2028here. \n".encode())
    assert read_sentences(path) == ["A dog.", "A cat\u2028here."]
    path.write_text("\n\n")
    with pytest.raises(DataError, match="holds no sentences"):
        read_sentences(path)


@pytest.mark.shared_data
def test_the_real_data_sets(shared_data):
    flickr8k = read_dataset("flickr8k", shared_data / "flickr8k")
    assert Counter(r.split for r in flickr8k) == {"train": 6000, "val": 1000, "test": 1000}
    assert all(len(r.captions) == 5 and r.path for r in flickr8k)
    flickr30k = read_dataset("flickr30k", shared_data / "flickr30k")
    assert Counter(r.split for r in flickr30k) == {"train": 29000, "val": 1014, "test": 1000}
    pytest.importorskip("pycocotools")
    coco = read_dataset("coco", shared_data / "coco" / "captions_val2017.json")
    assert len(coco) == 5000
    assert sum(len(r.captions) for r in coco) == 25014
