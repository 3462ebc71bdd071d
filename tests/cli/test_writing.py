"""``captioner caption`` with sidecars, metadata and all that people who caption folders expect."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from captioner.writing.embed import Embedded
from captioner.writing.xmp import read_description
from tests import tiny
from tests.conftest import CHECKOUT, Run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def run(tmp_path: Path, model: Path, cli: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``captioner caption`` by a tiny model, in a folder with images 00.png to 03.png in ``photos``."""
    monkeypatch.chdir(tmp_path)
    tiny.save_images(tmp_path / "photos", 4)
    return partial(cli, "caption", f"--model={model}")


def captions(lines: list[str]) -> dict[str, str]:
    return {Path(path).stem: text for path, text in (line.split("\t") for line in lines)}


def sidecars(folder: str, suffix: str = ".txt") -> dict[str, str]:
    return {path.stem: path.read_text().rstrip("\n") for path in Path(folder).rglob(f"*{suffix}")}


def test_sidecars_and_resuming(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run captions new images alone. Would catch captions that are made to be thrown away."""
    status, lines, err = run("photos", "--sidecar", ".txt")
    assert (status, err) == (0, ["4 files written"])
    assert sidecars("photos") == captions(lines) and len(set(sidecars("photos").values())) > 1
    assert run("photos", "--sidecar", ".txt") == (0, [], ["0 files written; 4 images had captions"])
    tiny.make_image(7).save("photos/new.png")
    Path("photos/01.txt").write_text(" \n")  # no caption
    status, lines, err = run("photos", "--sidecar", ".txt")
    assert list(captions(lines)) == ["01", "new"] and err == ["2 files written; 3 images had captions"]


@pytest.mark.parametrize("existing", ["skip", "overwrite", "append", "prepend"])
def test_captions_that_are_there(run: Run, existing: str) -> None:
    """Would catch a person's caption that is lost, and a text that is added by each run."""
    _, lines, _ = run("photos/00.png", "photos/01.png")
    text = captions(lines)["00"]
    Path("photos/00.txt").write_text("by Ann\n")
    for _ in range(2):
        assert run("photos", "--sidecar", ".txt", "--existing", existing)[0] == 0
    expected = {"skip": "by Ann", "overwrite": text, "append": f"by Ann, {text}", "prepend": f"{text}, by Ann"}
    assert sidecars("photos")["00"] == expected[existing]


def test_texts(run: Run) -> None:
    """The same text on stdout, as JSON and in the file."""
    _, plain, _ = run("photos")
    options = ("--prefix", "<", "--suffix", ">", "--trigger", "zwx", "--template", "{caption} ({folder}/{name})")
    options = (*options, "--replace", r"^\w+", "X", "--replace", "X (.*)", r"Y \1", "--sidecar", ".caption")
    status, lines, _ = run("photos", *options, "--json")
    assert status == 0
    for line, before in zip(map(json.loads, lines), plain, strict=True):
        path, text = before.split("\t")
        assert line["caption"] == f"zwx, <Y {text.partition(' ')[2]} (photos/{Path(path).stem})>"
        assert Path(path).with_suffix(".caption").read_text() == line["caption"] + "\n"


def test_labels(run: Run, model: Path, tmp_path: Path) -> None:
    """Would catch labels of another image."""
    from captioner.predictors.classifier import load_classifier
    from tests.predictors.test_classifier import save_captioner

    classifier = save_captioner(tmp_path / "classifier.safetensors")
    status, lines, _ = run("photos", "--template", "{labels}", "--labels-by", classifier)
    assert status == 0
    loaded = load_classifier(str(classifier))
    for line in lines:
        path, text = line.split("\t")
        assert text == ", ".join(one.name.partition(",")[0] for one in loaded.classify(path, top=3))


def test_labels_of_a_classifier_of_two_classes(run: Run, tmp_path: Path) -> None:
    """Would catch a number of labels that a small classifier does not have."""
    from tests.predictors.test_classifier import save_vit

    labels_by = save_vit(tmp_path / "vit", 2)
    status, lines, _ = run("photos", "--template", "{labels}", "--labels-by", labels_by)
    assert status == 0
    assert {text for text in captions(lines).values()} <= {"label 0, label 1", "label 1, label 0"}


@pytest.mark.parametrize("existing", ["append", "prepend"])
def test_an_embedded_caption_that_xml_cannot_hold(run: Run, existing: str) -> None:
    """Would catch old captions of other programs, by which a new one cannot be added."""
    from captioner.writing import iptc, jpeg
    from tests.writing.test_embed import resources, saved, with_segment

    old = resources(((2, 120), b"by Ann\rat the\x01sea\r\nin May\x02"))
    path = Path("photos/old.jpg")
    path.write_bytes(with_segment(saved("JPEG"), 0xED, iptc.SIGNATURE + old))
    text = run(path)[1][0]
    for _ in range(2):
        assert run(path, "--embed", "--existing", existing)[0] == 0
    kept = "by Ann\nat the sea\nin May"
    wanted = f"{kept}, {text}" if existing == "append" else f"{text}, {kept}"
    assert jpeg.read_captions(path.read_bytes()) == [wanted, wanted]  # XMP and IPTC


def test_a_dry_run_writes_nothing(run: Run) -> None:
    before = {path: path.read_bytes() for path in Path(".").rglob("*") if path.is_file()}
    status, lines, err = run("photos", "--sidecar", ".txt", "--embed", "--xmp", "--output-dir", "out", "--dry-run")
    assert (status, err) == (0, ["12 files would be written"])
    assert [line.split("\t")[:2] for line in lines[:3]] == [
        ["would write", name] for name in ("out/00.txt", "out/00.xmp", "photos/00.png")
    ]
    assert {path: path.read_bytes() for path in Path(".").rglob("*") if path.is_file()} == before


def test_a_mirrored_tree(run: Run) -> None:
    Path("photos/a/b").mkdir(parents=True)
    tiny.make_image(5).save("photos/a/b/deep.png")
    assert run("photos", "--sidecar", ".txt", "--output-dir", "out")[0] == 0
    assert Path("out/a/b/deep.txt").is_file() and Path("out/00.txt").is_file()
    assert not list(Path("photos").rglob("*.txt"))


def test_two_images_of_one_sidecar(run: Run) -> None:
    """Would catch a caption that is taken for that of another image."""
    tiny.make_image(9).convert("RGB").save("photos/00.jpg")
    status, _, err = run("photos", "--sidecar", ".txt")
    assert status == 1
    assert (
        err[0]
        == "error: photos/00.png: its caption would go into photos/00.txt, like that of photos/00.jpg; rename one"
    )
    assert len(sidecars("photos")) == 4
    for part in ("1/2", "2/2"):  # an image in another part counts too
        found = run("photos", "--sidecar", ".txt", "--existing", "overwrite", "--part", part)
        assert found[0] == (part == "2/2")


def test_metadata(run: Run) -> None:
    """XMP beside and inside the images, marked with who wrote it; a person's description stays."""
    Embedded("Ann").write(Path("photos/00.png"), "by Ann")
    pixels = {path: Image.open(path).tobytes() for path in Path("photos").glob("*.png")}
    status, lines, _ = run("photos", "--xmp", "--embed")
    texts = captions(lines)
    assert status == 0 and len(texts) == 4
    for path in Path("photos").glob("*.png"):
        assert read_description(path.with_suffix(".xmp").read_bytes()) == texts[path.stem]
        assert Embedded("").read(path) == ("by Ann" if path.stem == "00" else texts[path.stem])
        assert Image.open(path).tobytes() == pixels[path]
    assert b"captioner 0." in Path("photos/01.png").read_bytes()
    assert run("photos", "--xmp", "--embed")[1] == []
    run("photos/00.png", "--embed", "--existing", "overwrite")
    assert Embedded("").read(Path("photos/00.png")) == texts["00"]


def test_failed_images_are_listed_and_the_rest_goes_on(run: Run) -> None:
    """The list names what to try again. Would catch a list that a second run leaves as it was."""
    Path("photos/bad.png").write_text("no image")
    Image.new("RGB", (9, 9)).save("photos/bitmap.bmp")
    status, lines, _ = run("photos", "--embed", "--failed", "failed.tsv")
    assert status == 1 and list(captions(lines)) == ["00", "01", "02", "03"]
    rows = [line.split("\t") for line in Path("failed.tsv").read_text().splitlines()]
    assert [path for path, _ in rows] == ["photos/bad.png", "photos/bitmap.bmp"] and all(reason for _, reason in rows)
    Path("photos/bad.png").unlink()
    Path("photos/bitmap.bmp").unlink()
    assert run("photos", "--embed", "--failed", "failed.tsv")[0] == 0
    assert Path("failed.tsv").read_text() == ""
    Path("failed.tsv").write_text("my notes")
    assert run("photos", "--failed", "failed.tsv")[0] == 2


def test_linked_folders_are_not_written_into(run: Run, tmp_path: Path) -> None:
    """Would catch a stranger's folder whose link has captions written elsewhere on the disk."""
    tiny.save_images(tmp_path / "elsewhere", 1)[0].rename(tmp_path / "elsewhere" / "private.png")
    Path("photos/link").symlink_to(tmp_path / "elsewhere")
    Path("photos/again").symlink_to(tmp_path / "photos")
    status, lines, err = run("photos", "--sidecar", ".txt", "--embed")
    assert status == 1 and len(lines) == 4
    assert err[0].startswith("error: photos/link/private.png: a link leads out of photos")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["private.png"]
    assert run("photos/link", "--sidecar", ".txt")[0] == 0  # named by the user
    assert run("photos", "--sidecar", ".txt", "--output-dir", "out")[0] == 0


def test_a_folder_that_may_not_be_written(run: Run) -> None:
    """Would catch a run that ends, or a traceback, at the first file that is protected."""
    Path("photos/01.txt").write_text("")
    Path("photos/01.txt").chmod(0o444)
    status, lines, err = run("photos", "--sidecar", ".txt")
    assert status == 1 and list(captions(lines)) == ["00", "02", "03"]
    assert err[0].startswith("error: photos/01.txt: is write-protected")


def test_a_caption_without_words_is_not_written(run: Run) -> None:
    """Would catch an empty sidecar, which looks like a caption until somebody opens it."""
    status, lines, err = run("photos", "--sidecar", ".txt", "--replace", ".+", "")
    assert status == 1 and not lines and len(err) == 5 and "gave an empty caption" in err[0]
    assert not sidecars("photos")


def test_csv(run: Run) -> None:
    _, plain, _ = run("photos")
    status, lines, _ = run("photos", "--csv", "--suffix", ', "really"')
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert status == 0 and list(rows[0]) == ["image", "caption", "log_prob", "model"]
    assert [(row["image"], row["caption"]) for row in rows] == [
        (path, f'{text}, "really"') for path, text in (line.split("\t") for line in plain)
    ]
    assert all(float(row["log_prob"]) < 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--sidecar", ".txt", "--existing", "keep"], "choose one of skip, overwrite, append, prepend"),
        (["--output-dir", "x"], "--output-dir is for --sidecar and --xmp"),
        (["--dry-run"], "--dry-run needs an option"),
        (["--replace", "a"], "--replace needs two values"),
        (["--template", "{x}"], "not one of {caption}"),
        (["--sidecar", ".png"], "choose another suffix"),
        (["--xmp", "--num-return-sequences", "2"], "one caption per image"),
        (["--watch", "-o", "x.json"], "cannot be used with --watch"),
        (["--watch", "--part", "1/2"], "--part divides image files"),
        (["--json", "--csv"], "not both"),
        (["--workers", "4"], "name an engine too"),
        (["-o", "x.json", "--failed", "x.json"], "is the same file as x.json"),
        (["--engine", "local", "-o", "out", "--prefix", "x"], "leave out --features, --sidecar"),
    ],
)
def test_options_that_contradict(run: Run, arguments: list[str], reason: str) -> None:
    status, _, err = run("photos", *arguments)
    assert status == 2 and len(err) == 1 and reason in err[0], err
    assert not sidecars("photos")


def test_results_of_images_that_have_sidecars(run: Run) -> None:
    """Would catch a resumed run whose results lack the images that got their sidecars before it was stopped."""
    assert run("photos", "--sidecar", ".txt")[0] == 0
    before = dict(sorted(sidecars("photos").items()))
    status, _, err = run("photos", "--sidecar", ".txt", "-o", "results.json")
    assert (status, err) == (0, ["4 captions written to results.json", "0 files written"])
    assert [one["caption"] for one in json.loads(Path("results.json").read_text())] == list(before.values())
    assert sidecars("photos") == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_watching(run: Run, model: Path, tmp_path: Path) -> None:
    """What is there is captioned, then what arrives; Ctrl-C ends it without a complaint."""
    command = [
        sys.executable,
        "-m",
        "captioner",
        "caption",
        "photos",
        "--watch",
        "--sidecar",
        ".txt",
        f"--model={model}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(4)]
            tiny.make_image(8).save(tmp_path / "photos" / "late.png")
            lines.append(process.stdout.readline())
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()  # where SIGINT is ignored, as below nohup, it would never end
    assert [Path(line.split("\t")[0]).name for line in lines] == ["00.png", "01.png", "02.png", "03.png", "late.png"]
    assert sidecars(str(tmp_path / "photos"))["late"]
