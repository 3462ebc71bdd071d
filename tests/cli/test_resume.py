"""A run with ``-o`` that was stopped goes on where it was."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from captioner.backbones import load_backbone
from captioner.cli.app import main
from captioner.data.images import find_named
from captioner.features.extract import extract
from captioner.predictors.features import FeatureCaptioner
from tests import tiny

Lines = list[str]
PARTIAL = Path("results.json.partial")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches that were decoded."""
    sizes: list[int] = []
    decode = FeatureCaptioner.decode

    def counted(self: FeatureCaptioner, features: Any, config: Any) -> Any:
        sizes.append(len(features))
        return decode(self, features, config)

    monkeypatch.setattr(FeatureCaptioner, "decode", counted)
    return sizes


@pytest.fixture
def run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Lines, Lines]]:
    """``captioner caption ... -o results.json`` beside images 00.png to 05.png: status, stdout, stderr.

    ``stop_after`` is how many batches are decoded before Ctrl-C.
    """
    monkeypatch.chdir(tmp_path)
    tiny.save_images(tmp_path / "photos", 6)

    def run_command(*arguments: object, stop_after: int = -1) -> tuple[int, Lines, Lines]:
        command = ["caption", f"--model={model}", "--batch-size=2", "-o", "results.json", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["captioner", *command])
        decode, left = FeatureCaptioner.decode, [stop_after]

        def interrupted(self: FeatureCaptioner, features: Any, config: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                raise KeyboardInterrupt
            return decode(self, features, config)

        with monkeypatch.context() as patch:
            if stop_after >= 0:
                patch.setattr(FeatureCaptioner, "decode", interrupted)
            try:
                status = main()
            except SystemExit as leaving:
                status = int(leaving.code or 0)
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    return run_command


def results() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(Path("results.json").read_text())
    return found


def images_in(path: Path) -> Sequence[str]:
    return [Path(json.loads(line)["image"]).name for line in path.read_text().splitlines()[1:]]


def test_an_interrupted_run_goes_on(run: Any, decoded: list[int]) -> None:
    """Would catch finished captions that are lost or made again, another order, or a file that stays behind."""
    assert run("photos")[0] == 0
    whole = results()
    Path("results.json").unlink()
    assert not PARTIAL.exists() and sum(decoded) == 6
    status, _, err = run("photos", stop_after=2)
    assert status == 130 and not Path("results.json").exists()
    assert f"note: the captions so far are in {PARTIAL}; run the same command again to resume" in err
    assert images_in(PARTIAL) == ["00.png", "01.png", "02.png", "03.png"]
    decoded.clear()
    status, lines, err = run("photos")
    assert (status, lines) == (0, [])
    assert err == [f"note: resuming with 4 captions of a stopped run ({PARTIAL})", "6 captions written to results.json"]
    assert results() == whole and sum(decoded) == 2 and not PARTIAL.exists()


def test_json_lines_of_a_resumed_run_are_all_of_them(run: Any) -> None:
    """Would catch stdout of a resumed run that lacks the captions that were kept, or their log probabilities."""
    _, whole, _ = run("photos", "--json")
    run("photos", "--json", stop_after=1)
    _, resumed, _ = run("photos", "--json")
    without = [{**json.loads(line), "log_prob": None} for line in whole]
    assert [{**json.loads(line), "log_prob": None} for line in resumed] == without
    for one, other in zip(whole, resumed, strict=True):
        assert json.loads(one)["log_prob"] == pytest.approx(json.loads(other)["log_prob"], abs=1e-4)


def test_changed_new_and_failed_images_are_captioned(run: Any, decoded: list[int]) -> None:
    """Would catch an old caption of an image that was replaced, and an error that is kept."""
    Path("photos/01.png").rename("01.png")
    Path("photos/01.png").write_text("not yet")
    run("photos", stop_after=2)
    assert images_in(PARTIAL) == ["00.png", "02.png", "03.png"]
    decoded.clear()
    Path("01.png").replace("photos/01.png")
    tiny.make_image(50).save("photos/02.png")
    assert run("photos")[0] == 0
    assert sum(decoded) == 4
    resumed = results()
    assert run("photos")[0] == 0 and results() == resumed


def test_another_spelling_of_a_path_is_the_same_image(run: Any, decoded: list[int]) -> None:
    os.rename("photos/00.png", b"photos/00\xff \x1b.png")  # a name that is no text
    run("photos", stop_after=2)
    decoded.clear()
    assert run(Path("photos").resolve())[0] == 0
    assert sum(decoded) == 2 and len(results()) == 6


def test_other_options_or_another_model_start_anew(run: Any, decoded: list[int], tmp_path: Path) -> None:
    """Would catch results of two models, or of two beams, in one file."""
    other = tiny.save_tiny(tmp_path / "other.safetensors", [1])
    for option in ("--beam-size=1", f"--model={other}"):
        run("photos", stop_after=2)
        decoded.clear()
        status, _, err = run("photos", option)
        assert (status, sum(decoded), PARTIAL.exists()) == (0, 6, False)
        assert (
            err[0] == f"note: {PARTIAL} belongs to a run with another model, options or features and will be replaced"
        )


def test_features_are_resumed_by_id(run: Any, decoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch ids without features that end a resumed run because all others are done, and an old store."""

    def make_store() -> None:
        Path("store.h5").unlink(missing_ok=True)
        images = find_named(["photos"])
        extract(images, load_backbone("compact", state=tiny.network(0)), "store.h5", workers=0, dtype="float32")

    make_store()
    listed = "".join(f"{index:02}.png\tA dog .\n" for index in range(6))
    Path("own").mkdir()
    Path("own/images").symlink_to("../photos")
    Path("own/captions.tsv").write_text(listed + "lost.png\tA dog .\n")
    command = ["--features", "store.h5", "--data", "own", "--format", "own"]
    tiny.make_image(7).save("photos/lost.png")
    status, _, [error, *_] = run(*command)
    assert status == 1 and "lost.png: has no features" in error
    whole = results()
    decoded.clear()
    assert run(*command, stop_after=2)[0] == 130
    assert len(images_in(PARTIAL)) == 4
    with monkeypatch.context() as patch:
        patch.setattr("captioner.cli.caption.write_coco_results", full_disk)
        assert run(*command)[0] == 1 and len(images_in(PARTIAL)) == 6
    assert run(*command)[0] == 1 and results() == whole  # the lost image alone was left
    assert sum(decoded) == 6 and not PARTIAL.exists()
    run(*command, stop_after=2)
    make_store()
    decoded.clear()
    assert run(*command)[2][0].endswith("will be replaced")
    assert sum(decoded) == 7


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "results.json")


def test_damaged_lines_cost_only_themselves(run: Any, decoded: list[int]) -> None:
    """Would catch a traceback for a file that was edited, damaged or cut off, and a cut line that joins the next."""
    run("photos", stop_after=2)
    header, first, *rest = PARTIAL.read_bytes().splitlines(keepends=True)
    entry = json.loads(first)
    broken = [{**entry, "captions": value} for value in ([], 1, [[]], [["a", "b"]], [["a", float("nan")]], [[1, -1.0]])]
    broken += [{**entry, "size": "1"}, {**entry, "image": None}, [entry], 7, {}]
    odd = [json.dumps(one).encode() + b"\n" for one in broken]
    odd += [b"\xff\n", b"\n", b"[" * 10_000 + b"\n", b'"\\ud800"\n', b"9" * 5000 + b"\n"]
    PARTIAL.write_bytes(header + b"".join(odd) + b"".join(rest) + first[:-9])
    decoded.clear()
    _, _, err = run("photos", stop_after=1)
    assert err[:2] == [
        f"note: resuming with 3 captions of a stopped run ({PARTIAL})",
        f"note: {PARTIAL}: ignored {len(odd)} damaged lines",
    ]
    status, _, err = run("photos")
    assert (status, err[0]) == (0, f"note: resuming with 5 captions of a stopped run ({PARTIAL})")
    assert len(results()) == 6 and sum(decoded) == 3


def test_a_foreign_file_is_left_alone(run: Any) -> None:
    """Would catch a file of somebody else's, or a pipe, that is overwritten because of its name."""
    PARTIAL.write_text("my notes\n")
    status, _, [line] = run("photos")
    assert status == 2 and line.startswith(f"error: -o {PARTIAL} exists and is not the unfinished results")
    assert PARTIAL.read_text() == "my notes\n"
    PARTIAL.unlink()
    os.mkfifo(PARTIAL)
    status, _, [line] = run("photos")
    assert status == 2 and "which is not a file" in line
    PARTIAL.unlink()
    PARTIAL.symlink_to("photos/00.png")
    status, _, [line] = run("photos", "photos/00.png")
    assert status == 2 and "is the same file as photos/00.png" in line


def test_streams_have_no_file_beside_them(model: Path, run: Any) -> None:
    """Would catch /dev/stdout.partial."""
    command = [sys.executable, "-m", "captioner", "caption", "photos", f"--model={model}", "-o", "/dev/stdout"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, timeout=120, env=environment, check=True)
    assert len(json.load(io.BytesIO(done.stdout))) == 6
    with open("out.json", "wb") as file:
        subprocess.run([*command[:-1], "out.json"], stdout=file, timeout=120, env=environment, check=True)
    assert len(json.loads(Path("out.json").read_text())) == 6
    assert not list(Path("/dev").glob("stdout.partial")) and not list(Path.cwd().glob("*.partial"))


def test_one_caption_is_one(run: Any) -> None:
    """Would catch "1 captions written"."""
    assert run("photos/00.png")[2] == ["1 caption written to results.json"]
