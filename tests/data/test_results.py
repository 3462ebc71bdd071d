"""Results and references from files of every form: what belongs together, and every way in which it may not."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest

from captioner.data.records import Captioned
from captioner.data.results import Matched, match, read_references, read_results
from captioner.errors import DataError, UsageError

CAPTIONS = {"1.jpg": "a red dog", "2.jpg": "a blue dog"}
REFERENCES = {"1.jpg": ("A red dog.", "A dog."), "2.jpg": ("A blue dog.", "Dogs.")}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lines(*rows: object) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def coco_results(**captions: object) -> str:
    return json.dumps([{"image_id": image, "caption": text} for image, text in captions.items()])


TSV = lines(*(f"{image}\t{text}" for image, texts in REFERENCES.items() for text in texts))
KARPATHY = json.dumps(
    {
        "images": [
            {"filename": image, "split": "test", "cocoid": int(image[0]), "sentences": [{"raw": t} for t in texts]}
            for image, texts in REFERENCES.items()
        ]
    }
)
COCO = json.dumps(
    {
        "images": [{"id": int(image[0]), "file_name": image} for image in REFERENCES],
        "annotations": [
            {"id": 10 * int(image[0]) + n, "image_id": int(image[0]), "caption": text}
            for image, texts in REFERENCES.items()
            for n, text in enumerate(texts)
        ],
    }
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", coco_results(**CAPTIONS)),
        ("a.json", coco_results(**{"2": "a blue dog", "1": "a red dog"})),
        ("a", coco_results(**{"photos/1.jpg": "a red dog", "2": " a blue dog "})),
        ("a.jsonl", lines(*({"image": f"/x/{i}", "caption": t, "log_prob": -1.5} for i, t in CAPTIONS.items()))),
        ("a", lines(*({"image_id": i, "caption": t} for i, t in CAPTIONS.items()))),
        ("a.tsv", "image\tcaption\r\n1.jpg\ta red dog\r\n2.jpg\ta blue dog\r\n"),
        ("a.txt", "\ufeff" + lines("1.jpg\ta red dog", "2.jpg\ta blue dog")),
    ],
)
@pytest.mark.parametrize(
    ("reference", "content"),
    [
        ("refs.tsv", TSV),
        ("refs.jsonl", lines(*({"image": i, "captions": list(t)} for i, t in REFERENCES.items()))),
        ("refs.json", KARPATHY),
        ("captions_val2017.json", COCO),
    ],
)
def test_every_form_reads_the_same(tmp_path: Path, name: str, text: str, reference: str, content: str) -> None:
    results = read_results(write(tmp_path / name, text))
    if not reference.endswith(".json") and set(results.captions) == {"1", "2"}:
        results.captions.update({f"{key}.jpg": results.captions.pop(key) for key in "12"})  # no numbers there
    found = match(results, read_references([write(tmp_path / reference, content)]))
    metadata = {"refs.json": {"split": "test"}, "captions_val2017.json": {"split": "val"}}.get(reference, {})
    assert found == Matched(CAPTIONS, REFERENCES, [], metadata)


@pytest.mark.parametrize("images", [None, [], [{"id": "x"}, {"id": 7}]])
def test_coco_references_without_file_names(tmp_path: Path, images: list[object] | None) -> None:
    """Results of the same ids, numbers or not, find their references."""
    pytest.importorskip("pycocotools")
    annotations = [{"image_id": image, "caption": "A dog."} for image in ("x", 7, 7)]
    content = {"annotations": annotations, **({} if images is None else {"images": images})}
    references = read_references([write(tmp_path / "r.json", json.dumps(content))])
    results = write(tmp_path / "a.json", json.dumps([{"image_id": i, "caption": f"dog {i}"} for i in ("x", 7)]))
    found = match(read_results(results), references)
    assert found.hypotheses == {"7": "dog 7", "x": "dog x"}
    assert found.references == {"7": ("A dog.", "A dog."), "x": ("A dog.",)}


@pytest.mark.parametrize("one_file", [True, False])
def test_plain_lines_go_with_plain_lines(tmp_path: Path, one_file: bool) -> None:
    results = read_results(write(tmp_path / "a.txt", lines("a red dog", "a blue dog")))
    columns = [[texts[n] for texts in REFERENCES.values()] for n in range(2)]
    paths = [write(tmp_path / f"r{n}.txt", lines(*column)) for n, column in enumerate(columns)]
    if one_file:
        paths = [write(tmp_path / "r.tsv", lines(*("\t".join(texts) for texts in REFERENCES.values())))]
    found = match(results, read_references(paths, aligned=results.aligned))
    assert [*found.hypotheses.values()] == [*CAPTIONS.values()]
    assert [*found.references.values()] == [*REFERENCES.values()]


def refused(tmp_path: Path, results: str, references: str, names: tuple[str, str], **options: str) -> str:
    """The message for two files that cannot be scored."""
    with pytest.raises((DataError, UsageError)) as caught:
        read = read_results(write(tmp_path / names[0], results))
        match(read, read_references([write(tmp_path / names[1], references)], aligned=read.aligned), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


JSON_TSV = ("a.json", "refs.tsv")


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ("[{]", "line 1: not valid JSON"),
        ("{}", "expected a list"),
        ("[]", "holds no captions"),
        ("[3]", "entry 0: needs image_id"),
        ('[{"image_id": 1}]', r"entry 0 \(of 1\): needs image_id"),
        ('[{"image_id": true, "caption": "a"}]', "entry 0: needs image_id"),
        ('[{"image_id": 1, "caption": ["a"]}]', r"entry 0 \(of 1\): needs image_id"),
        ('[{"image_id": 1, "caption": "a"}, {"image_id": "1", "caption": "b"}]', "a second caption for 1; keep one"),
        (coco_results(**{"1.jpg": "a", "x/1.jpg": "b"}), "two captions are of the image 1.jpg"),
        (coco_results(**{"77": "a"}), "no result has references: .* such as 77, references of 1.jpg"),
        (coco_results(**CAPTIONS, **{"9.jpg": "a"}), r"1 of 3 captions \(9.jpg\) have no references; .*--missing skip"),
        (coco_results(**{"1.jpg": "a"}), r"1 of 2 images \(2.jpg\) have no caption; .*--missing empty"),
        (coco_results(**{"1.jpg": "a", "2.jpg": None}), r"\(2.jpg\) have no caption \(1 are null\)"),
        (coco_results(**{"1.jpg": None, "2.jpg": "  "}), "holds no captions but empty ones"),
        (COCO, "holds references, not results; are results and references exchanged?"),
    ],
)
def test_wrong_results_are_explained(tmp_path: Path, results: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        match(read_results(write(tmp_path / "a.json", results)), read_references([write(tmp_path / "refs.tsv", TSV)]))


@pytest.mark.parametrize(
    ("results", "references", "names", "message"),
    [
        (
            TSV,
            coco_results(**CAPTIONS),
            ("a.tsv", "r.json"),
            "a second caption for 1.jpg; .*are these the references",
        ),
        (coco_results(**CAPTIONS), coco_results(**CAPTIONS), ("a.json", "r.json"), "holds results, not references"),
        (coco_results(**CAPTIONS), lines("a dog", "a dog"), ("a.json", "r.txt"), "has no image names, but"),
        (lines("a dog", "a cat"), TSV, ("a.txt", "r.tsv"), "has image names, but the results have none"),
        (lines("a dog", "a cat"), KARPATHY, ("a.txt", "r.json"), "need text files with one reference per line"),
        (lines("a dog", "a cat"), lines("a", "b", "c"), ("a.txt", "r.txt"), "2 captions, but references for 3 lines$"),
        (
            lines("a dog", "a cat"),
            lines(*"abcdef"),
            ("a.txt", "r.txt"),
            "6 lines, 3 times as many: write one file per ref",
        ),
        (lines(*"abcdef"), lines("a", "b"), ("a.txt", "r.txt"), "6 captions, but references for 2 lines$"),
        ("\n\n", lines("a", "b"), ("a.txt", "r.txt"), "holds no captions"),
        (coco_results(**CAPTIONS), "1.jpg\ta\tb\n", JSON_TSV, "line 1: expected image<TAB>caption"),
        (
            coco_results(**CAPTIONS),
            "1.jpg\ta\ttest\n1.jpg\tb\tdev\n",
            JSON_TSV,
            "line 2: 1.jpg is in val here, in test",
        ),
        (coco_results(**CAPTIONS), "1.jpg\t\n", JSON_TSV, "no image has a reference caption"),
        (coco_results(**CAPTIONS), "{}", ("a.json", "r.json"), "neither COCO annotations nor a Karpathy"),
    ],
)
def test_files_that_do_not_go_together(
    tmp_path: Path, results: str, references: str, names: tuple[str, str], message: str
) -> None:
    """Exchanged, transposed, of another form or of other lengths: never a number."""
    found = refused(tmp_path, results, references, names)
    assert re.search(message, found), found


def test_several_reference_files_and_folders(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.txt", lines("a", "b")), write(tmp_path / "2.txt", lines("a"))
    with pytest.raises(DataError, match=r"different numbers of lines: 1.txt 2, 2.txt 1"):
        read_references([one, two], aligned=True)
    with pytest.raises(UsageError, match="are for results with one caption per line"):
        read_references([one, two])
    with pytest.raises(UsageError, match="name its format with --format"):
        read_references([tmp_path])
    with pytest.raises(UsageError, match="no references"):
        read_references([])
    with pytest.raises(DataError, match="is a folder"):
        read_results(tmp_path)
    with pytest.raises(UsageError, match="not a data set"):
        read_references([tmp_path], "flickr8k", aligned=True)


def test_wrong_encodings(tmp_path: Path) -> None:
    """Latin-1 is refused with its line; what was decoded wrongly before is told."""
    path = tmp_path / "a.tsv"
    path.write_bytes("1.jpg\ta dog\n2.jpg\ta café\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        read_results(path)
    path.write_bytes("1.jpg\ta dog\n".encode("utf-16"))
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        read_results(path)
    for wrong in ("a cafÃ©", "a caf\ufffd", "a manâ€™s hat"):
        results = read_results(write(path, f"1.jpg\t{wrong}\n2.jpg\ta dog\n"))
        [note] = match(results, read_references([write(tmp_path / "refs.tsv", TSV)])).notes
        assert "wrong encoding" in note
    results = read_results(write(path, "1.jpg\ta café â la Ã\n2.jpg\ta man’s dog\n"))
    assert not match(results, read_references([tmp_path / "refs.tsv"])).notes


def test_choices_for_what_is_missing(tmp_path: Path) -> None:
    """Each choice stands in the signature; would catch images that drop out in silence."""
    references = read_references([write(tmp_path / "refs.tsv", TSV + "3.jpg\ta cat\n3.jpg\tcats\n")])
    path = tmp_path / "a.json"
    results = read_results(write(path, coco_results(**{"1.jpg": "a dog", "2.jpg": None, "9.jpg": "a"})))
    skipped = match(results, references, "skip")
    assert [*skipped.hypotheses] == [*skipped.references] == ["1.jpg"]
    assert skipped.metadata == {"unknown": "skip-1", "missing": "skip-2"}
    assert len(skipped.notes) == 2 and "9.jpg" in skipped.notes[0] and "2 of 3 images" in skipped.notes[1]
    with pytest.raises(DataError, match="9.jpg"):
        match(results, references, "empty")
    results = read_results(write(path, coco_results(**{"1.jpg": "a dog", "2.jpg": None})))
    filled = match(results, references, "empty")
    assert filled.hypotheses == {"1.jpg": "a dog", "2.jpg": "", "3.jpg": ""}
    assert filled.metadata == {"missing": "empty-2"}
    with pytest.raises(UsageError, match="error, skip, empty"):
        match(results, references, "drop")
    results = read_results(write(path, coco_results(**{"1.jpg": "a dog", "2.jpg": " "})))
    empty = match(results, references, "skip")
    assert empty.hypotheses == {"1.jpg": "a dog", "2.jpg": ""}
    assert empty.metadata == {"missing": "skip-1", "empty": "1"} and "(2.jpg) have an empty caption" in empty.notes[1]


def test_one_reference_and_one_caption_are_told(tmp_path: Path) -> None:
    results = read_results(write(tmp_path / "a.json", coco_results(**dict.fromkeys(CAPTIONS, "a dog"))))
    notes = match(results, read_references([write(tmp_path / "refs.tsv", "1.jpg\ta\n2.jpg\tb\n")])).notes
    assert "one reference an image" in notes[0] and "all captions" in notes[1]


def test_names_that_two_images_share_fit_neither(tmp_path: Path) -> None:
    """Would catch a caption that is held against the image of the same name in another folder."""
    references = read_references([write(tmp_path / "refs.tsv", "a/1.jpg\ta dog\nb/1.jpg\ta cat\nb/2.jpg\ta cow\n")])
    path = tmp_path / "a.json"
    found = match(read_results(write(path, coco_results(**{"a/1.jpg": "x", "b/1.jpg": "y", "2.jpg": "z"}))), references)
    assert found.hypotheses == {"a/1.jpg": "x", "b/1.jpg": "y", "b/2.jpg": "z"}
    with pytest.raises(DataError, match=r"\(1.jpg\) have no references"):
        match(read_results(write(path, coco_results(**{"1.jpg": "x", "2.jpg": "z"}))), references)


def shared_names(form: str, second: object = 2) -> str:
    """Two images of one file name, in other folders or not, and a third whose name is the first one's number."""
    ids = {1: "a.jpg", second: "a.jpg", 3: "1"}
    if form == "coco":
        images = [{"id": i, "file_name": name} for i, name in ids.items()]
        return json.dumps({"images": images, "annotations": [{"image_id": i, "caption": f"dog {i}"} for i in ids]})
    images = [
        {"filename": name, "filepath": f"folder{i}", "cocoid": i, "split": "test", "sentences": [{"raw": f"dog {i}"}]}
        for i, name in ids.items()
    ]
    return json.dumps({"images": images})


@pytest.mark.parametrize("form", ["coco", "karpathy"])
def test_images_that_share_a_file_name_are_told_apart_by_their_ids(tmp_path: Path, form: str) -> None:
    """Would catch captions held against another image's references because records are keyed by file name."""
    references = read_references([write(tmp_path / "val.json", shared_names(form))])
    path = tmp_path / "a.json"
    found = match(read_results(write(path, coco_results(**{"3": "c", "1": "a", "2": "b"}))), references)
    assert {found.hypotheses[image]: texts for image, texts in found.references.items()} == {
        "a": ("dog 1",), "b": ("dog 2",), "c": ("dog 3",)
    }  # fmt: skip
    with pytest.raises(DataError, match=r"\(a.jpg\) have no references"):
        match(read_results(write(path, coco_results(**{"a.jpg": "a", "2": "b"}))), references)


def test_ids_that_do_not_tell_images_apart_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "val.json", shared_names("karpathy", "1"))
    with pytest.raises(DataError, match="two images are called a.jpg#1; give each its own name or id"):
        read_references([path])
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    write(path, json.dumps({"images": images, "annotations": [{"image_id": 1, "caption": "a"}]}))
    with pytest.raises(DataError, match="two images have the id 1"):
        read_references([path])


def test_a_number_that_two_images_share_is_no_third_ones_name(tmp_path: Path) -> None:
    """Would catch a caption of one of two images with the number 1 that goes to the image called ``1``."""
    [rows, numbers] = [("a.jpg", "b.jpg", "1"), (1, 1, 3)]
    references = [Captioned(n, None, ("a dog",), "test", i) for n, i in zip(rows, numbers, strict=True)]
    results = read_results(write(tmp_path / "a.json", coco_results(**{"1": "a", "3": "b"})))
    assert match(results, references, "skip").hypotheses == {"1": "b"}


def test_names_match_however_accents_are_written(tmp_path: Path) -> None:
    """Would catch captions that lose their references because one of the files was made on a Mac."""
    composed, apart = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))
    references = read_references([write(tmp_path / "refs.tsv", f"{apart}\ta dog\n{composed}\ta cat\n")])
    found = match(read_results(write(tmp_path / "a.json", coco_results(**{apart: "x"}))), references)
    assert (found.hypotheses, found.references) == ({composed: "x"}, {composed: ("a dog", "a cat")})


@pytest.mark.parametrize("others", [{}, {"2.jpg": "b"}])
def test_a_name_in_other_capitals_is_hinted_at(tmp_path: Path, others: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"did you mean 1.jpg, as capitals count\?"):
        results = read_results(write(tmp_path / "a.json", coco_results(**{"1.JPG": "a"}, **others)))
        match(results, read_references([write(tmp_path / "refs.tsv", TSV)]))
