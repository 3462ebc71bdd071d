"""``captioner caption`` as people call it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from captioner.backbones import load_backbone
from captioner.data.images import find_named
from captioner.features.extract import extract
from captioner.tasks.sentences.config import CaptionDataConfig
from tests import tiny
from tests.conftest import CHECKOUT, Run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with images 00.png to 03.png in ``photos``."""
    monkeypatch.chdir(tmp_path)
    tiny.save_images(tmp_path / "photos", 4)
    return tmp_path


@pytest.fixture
def run(model: Path, cli: Run) -> Run:
    """``captioner caption`` by a tiny model."""
    return partial(cli, "caption", f"--model={model}")


def columns(lines: list[str]) -> dict[str, str]:
    return dict(line.split("\t") for line in lines)


def test_one_image_prints_its_caption_and_several_their_paths(run: Run, folder: Path) -> None:
    status, [caption], err = run("photos/00.png")
    assert (status, err) == (0, [])
    assert caption
    assert "\t" not in caption
    paths = [f"photos/{index:02}.png" for index in range(4)]
    status, lines, err = run(*paths)
    assert (status, err) == (0, [])
    captions = columns(lines)
    assert list(captions) == paths
    assert captions["photos/00.png"] == caption
    for arguments, stdin in ((["photos"], ""), (["photos/*.png"], ""), (["-"], "\n".join(paths)), (["-"], paths[0])):
        _, lines, _ = run(*arguments, stdin=stdin)
        assert columns(lines).items() <= captions.items()
        assert len(lines) == (len(stdin.split()) or 4)


def test_a_image_named_like_a_glob_is_one_image(run: Run, folder: Path) -> None:
    (folder / "photos/00.png").rename(folder / "photo[1].png")
    status, lines, _ = run("photo[1].png")
    assert status == 0
    assert len(lines) == 1
    assert "\t" not in lines[0]


def test_images_as_people_have_them(run: Run, folder: Path) -> None:
    """Each of these modes and formats has made some captioning tool fail."""
    photo = tiny.make_image(1)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    photo.save("exif.jpg", exif=rotated)
    photo.convert("CMYK").save("cmyk.jpg")
    photo.convert("L").save("gray.jpg")
    Image.new("I;16", (40, 30), 40000).save("deep.png")
    photo.convert("RGBA").save("alpha.png")
    photo.convert("P").save("palette.png")
    photo.convert("1").save("bilevel.png")
    photo.save("web.webp")
    photo.save("frames.gif", save_all=True, append_images=[tiny.make_image(2)])
    photo.resize((1, 1)).save("pixel.png")
    photo.resize((5000, 4000)).save("large.jpg")
    photo.resize((3000, 1)).save("line.png")
    names = sorted(path.name for path in folder.glob("*.*"))
    status, lines, err = run(*names)
    assert (status, err) == (0, [])
    assert list(columns(lines)) == names


def test_broken_images_cost_one_line_each(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of thousands must not end, or lose a line, at its first bad file."""
    whole = Path("photos/00.png").read_bytes()
    Path("truncated.png").write_bytes(whole[: len(whole) // 2])
    Path("empty.jpg").touch()
    Path("text.jpg").write_text("no image")
    Path("nothing").mkdir()
    Image.new("1", (20_000, 10_000)).save("bomb.png")
    broken = ["truncated.png", "empty.jpg", "text.jpg", "missing.jpg", "nothing", "bomb.png", "none*.png"]
    status, lines, err = run(broken[0], "photos/01.png", *broken[1:], "photos")
    assert status == 1
    assert [line.split("\t")[0] for line in lines] == ["photos/01.png", *(f"photos/{i:02}.png" for i in range(4))]
    assert [line.split(": ")[:2] for line in err] == [["error", name] for name in broken]
    assert all(len(line.split(": ", 2)[2]) > 5 for line in err), "a line without a reason"
    for name in broken:
        status, lines, [line] = run(name)
        assert (status, lines, line.startswith(f"error: {name}: ")) == (1, [], True)


def test_json_has_one_object_a_caption(run: Run, folder: Path, model: Path) -> None:
    status, lines, err = run("photos/00.png", "photos/01.png", "--json", "--num-return-sequences", 2)
    assert (status, err) == (0, [])
    objects = [json.loads(line) for line in lines]
    assert [item["image"] for item in objects] == ["photos/00.png"] * 2 + ["photos/01.png"] * 2
    assert objects[0]["log_prob"] >= objects[1]["log_prob"]
    assert all(set(item) == {"image", "caption", "log_prob", "model"} for item in objects)
    assert objects[0]["model"] == str(model)
    _, texts, _ = run("photos/00.png", "--num-return-sequences", 2)
    assert texts == [item["caption"] for item in objects[:2]]


def test_sampling_is_reproducible(run: Run, folder: Path) -> None:
    drawn = [run("photos", "--num-samples", 2, "--temperature", 2, "--seed", seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][0] == 0


def test_results_are_in_coco_form(run: Run, folder: Path) -> None:
    captions = columns(run("photos")[1])
    status, lines, err = run("photos", "missing.jpg", "-o", "out/results.json")
    assert (status, lines) == (1, [])
    assert err[0].startswith("error: missing.jpg: ")
    results = json.loads(Path("out/results.json").read_text())
    assert results == [{"image_id": Path(path).name, "caption": text} for path, text in captions.items()]
    Path("other").mkdir()
    tiny.make_image(9).save("other/00.png")
    assert run("photos", "other", "-o", "results.json")[0] == 0
    ids = [item["image_id"] for item in json.loads(Path("results.json").read_text())]
    assert ids == ["photos/00.png", "01.png", "02.png", "03.png", "other/00.png"]


def test_an_image_given_twice_has_one_result(run: Run, folder: Path) -> None:
    """Would catch results that captioner score refuses; a link to an image is another image."""
    Path("photos/link.png").symlink_to("00.png")
    photo = folder / "photos" / "00.png"
    status, _, err = run("photos/00.png", photo, "./photos/../photos/00.png", "photos", "-o", "results.json")
    assert (status, err[1]) == (0, "note: given more than once: 3 images; the file has one result for each")
    ids = [item["image_id"] for item in json.loads(Path("results.json").read_text())]
    assert ids == ["00.png", "01.png", "02.png", "03.png", "link.png"]


def test_names_cannot_steer_the_terminal(run: Run, folder: Path) -> None:
    """Would catch names that go to the terminal as they are."""
    Path("photos/00.png").rename("photos/\x1b]0;owned\x07.png")
    _, lines, err = run("photos", "\x1b[2J.png")
    assert "\\x1b]0;owned\\x07" in "".join(lines) and "\\x1b[2J.png" in err[0]
    assert "\x1b" not in "".join(lines + err)


def test_nothing_captioned_leaves_an_older_file_alone(run: Run, folder: Path) -> None:
    Path("results.json").write_text("[]")
    assert run("missing.jpg", "-o", "results.json")[0] == 1
    assert Path("results.json").read_text() == "[]"
    status, lines, err = run("-", stdin="")
    assert (status, lines, err) == (1, [], ["error: no images were given"])


def test_results_never_replace_something_else(run: Run, folder: Path) -> None:
    """Would catch a slip of the hand that turns the photo, or the references, into JSON."""
    Path("refs.tsv").write_text("00.png\ta dog\n")
    Path("dataset.json").write_text('{"images": []}')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in ("photos/01.png", "refs.tsv", "dataset.json"):
        status, lines, [line] = run("photos/00.png", "-o", name)
        assert (status, lines) == (2, []) and f"-o {name} exists and is not a JSON list of results" in line
    status, _, [line] = run("photos/00.png", "-o", "photos/../photos/00.png")
    assert status == 2 and "is the same file as photos/00.png" in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    for _ in range(2):  # its own results may be replaced
        assert run("photos/00.png", "-o", "results.json")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.jpg", "--beam-size", "3", "--method", "greedy"],
        ["a.jpg", "--num-samples", "5", "--beam-size", "3"],
        ["a.jpg", "--method", "widest"],
        ["a.jpg", "--temperature", "0.5"],
        ["a.jpg", "--beam-size", "2", "--num-return-sequences", "3"],
        ["a.jpg", "--features", "store.h5"],
        ["a.jpg", "--split", "test"],
        ["a.jpg", "--num-return-sequences", "2", "-o", "results.json"],
        ["a.jpg", "-o", "."],
        ["a.jpg", "--device", "toaster"],
        ["--features", "store.h5", "--split", "exam"],
    ],
)
def test_conflicting_options_are_one_line(run: Run, folder: Path, arguments: list[str]) -> None:
    status, lines, err = run(*arguments)
    assert (status, lines) == (2, [])
    [line] = err
    assert line.startswith("error: ")


def test_a_split_is_captioned_from_cached_features(run: Run, folder: Path, model: Path) -> None:
    """The results of a data set that numbers its images carry the numbers, or its scorer finds nothing."""
    extract(
        find_named(["photos"]), load_backbone("compact", state=tiny.network(0)), "store.h5", workers=0, dtype="float32"
    )
    by_file = {Path(path).name: text for path, text in columns(run("photos")[1]).items()}
    status, lines, err = run("--features", "store.h5")
    assert (status, err) == (0, [])
    assert columns(lines) == by_file
    images = [
        {"filename": f"{index:02}.png", "cocoid": 100 + index, "split": split, "sentences": [{"raw": "A dog ."}]}
        for index, split in enumerate(["test", "train", "test", "val"])
    ]
    Path("data").mkdir()
    Path("data/dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    arguments = ["--features", "store.h5", "--split", "test"]
    status, lines, _ = run(*arguments, "--data", "data", "--format", "karpathy", "-o", "results.json")
    assert (status, lines) == (0, [])
    assert json.loads(Path("results.json").read_text()) == [
        {"image_id": 100, "caption": by_file["00.png"]},
        {"image_id": 102, "caption": by_file["02.png"]},
    ]
    learned = CaptionDataConfig(format="karpathy", root="data")
    trained = tiny.save_tiny(folder / "trained.safetensors", data=learned)
    status, lines, _ = run(*arguments, "--model", trained)
    assert columns(lines) == {name: by_file[name] for name in ("00.png", "02.png")}


def test_a_damaged_feature_costs_its_image_alone(run: Run, folder: Path) -> None:
    """Would catch one flipped byte in a store of thousands that ends the whole run."""
    extract(find_named(["photos"]), load_backbone("compact", state=tiny.network(0)), "store.h5", workers=0)
    whole = columns(run("--features", "store.h5")[1])
    with h5py.File("store.h5", "r+") as file:
        file["features"][1, 0] += 1
        file["features"][2, 0] = np.nan
    status, lines, err = run("--features", "store.h5")
    assert (status, columns(lines)) == (1, {name: whole[name] for name in ("00.png", "03.png")})
    assert [line.partition(": store.h5")[0] for line in err] == ["error: 01.png", "error: 02.png"]
    assert all("is damaged or not finite; delete the file and extract again" in line for line in err)


def test_a_bar_is_shown_to_who_watches_and_keeps_out_of_the_result(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rich moves stdout into the stream of its bar unless it is told not to; a redirected result was empty."""
    quiet = run("photos")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", watched := Terminal())
    status, lines, _ = run("photos", "missing.jpg")
    assert (status, lines) == (1, quiet[1])
    assert "captioning" in watched.getvalue()
    assert "5/5" in watched.getvalue()
    assert "error: missing.jpg: no such file" in watched.getvalue()


def start(*arguments: object, folder: Path) -> subprocess.Popen[bytes]:
    """A fresh interpreter in ``folder``, with pipes."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, *map(str, arguments)]
    pipe = subprocess.PIPE
    # A shell starts jobs in the background deaf to Ctrl-C, and so would be their children, tests among them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, env=environment)
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_photo_loads_no_more_than_it_needs(model: Path, folder: Path) -> None:
    """torchvision alone takes as long to import as torch; a person waits for that."""
    heavy = "torchvision transformers h5py matplotlib sacrebleu scipy pandas sympy rich.progress torch._dynamo".split()
    code = f"""if True:
        import sys
        from captioner.cli.app import main
        try:
            main()
        finally:
            print([module for module in {heavy} if module in sys.modules])"""
    with start("-c", code, "caption", "photos/00.png", f"--model={model}", folder=folder) as done:
        out, err = done.communicate(timeout=120)
    assert (done.returncode, err) == (0, b"")
    caption, loaded = out.decode().splitlines()
    assert caption
    assert loaded == "[]"


def test_an_interrupt_ends_it_quietly_after_what_is_done(model: Path, folder: Path) -> None:
    """Captions come as they are made, also through a pipe, and Ctrl-C is no accident."""
    os.rename("photos/00.png", b"photos/00\xff.png")  # a name that is no text
    with start("-m", "captioner", "caption", "-", f"--model={model}", "--batch-size=1", folder=folder) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"photos/00\xff.png\nphotos/01.png\nphotos/02.png\n")
        running.stdin.flush()
        assert running.stdout.readline().startswith(b"photos/00\xff.png\t")
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert b"Traceback" not in err


def test_a_reader_that_leaves_ends_it_quietly(model: Path, folder: Path) -> None:
    """``captioner caption ... | head -1`` is ordinary."""
    images = ["photos/01.png"] * 40
    with start("-m", "captioner", "caption", *images, f"--model={model}", "--batch-size=1", folder=folder) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""


def test_a_heic_photo_is_captioned(cli: Run, tmp_path: Path) -> None:
    """Would catch photos of phones that are left out of a folder, or that the command line cannot open."""
    pytest.importorskip("pillow_heif", reason="needs the extra heif").register_heif_opener()
    with Image.open(CHECKOUT / "examples" / "dog.jpg") as image:
        image.save(tmp_path / "dog.heic", "HEIF", quality=95)
    status, [line], err = cli("caption", tmp_path)
    path, _, caption = line.partition("\t")
    assert (status, path, err) == (0, str(tmp_path / "dog.heic"), [])
    assert "shepherd" in caption
    assert cli("caption", path) == (0, [caption], [])
