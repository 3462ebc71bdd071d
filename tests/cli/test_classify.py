"""``captioner classify``: what is printed, and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.cli.app import main
from tests.labeled import draw_images, write_mnist
from tests.predictors.test_classifier import run_of, save_vit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mnist")
    write_mnist(folder / "data", train=200)
    return str(run_of(folder, "mnist-lenet", "train.epochs=4")[1])


@pytest.fixture
def digits(tmp_path: Path) -> list[Path]:
    pixels, _ = draw_images(3, 28, 1, 10, seed=7)
    paths = [tmp_path / "digits" / f"{number}.png" for number in range(3)]
    paths[0].parent.mkdir()
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    return paths


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["captioner", "classify", *map(str, arguments)])
    try:
        return main()
    except SystemExit as ended:
        return int(ended.code or 0)


def test_one_image_prints_probability_and_class(
    run: str, digits: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch classes in the order of their numbers, and probabilities that are no percentages."""
    assert command(monkeypatch, digits[2], "--model", run, "--top", 3) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3 and lines[0][1] == "2"
    shares = [float(share.removesuffix("%")) for share, _ in lines]
    assert shares == sorted(shares, reverse=True) and 0 < shares[0] <= 100


def test_a_folder_prints_paths_and_json_is_one_object_an_image(
    run: str, digits: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch lines that no program can assign to their image."""
    assert command(monkeypatch, digits[0].parent, "--model", run, "--top", 2) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == [str(path) for path in digits for _ in range(2)]
    assert command(monkeypatch, digits[0].parent, "--model", run, "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["image"] for record in records] == list(map(str, digits))
    assert [record["classes"][0]["name"] for record in records] == ["0", "1", "2"]
    assert len(records[0]["classes"]) == 5 and records[0]["model"] == run


def test_a_classifier_of_two_classes_names_both(
    digits: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch a default number of classes that a small classifier does not have; more are refused if asked for."""
    model = save_vit(tmp_path / "vit", 2)
    assert command(monkeypatch, digits[0], "--model", model) == 0
    names = {line.split("\t")[1] for line in capsys.readouterr().out.splitlines()}
    assert names == {"label 0", "label 1"}
    assert command(monkeypatch, digits[0], "--model", model, "--top", 5) == 2
    assert "top must be between 1 and 2" in capsys.readouterr().err


def test_a_bad_image_is_reported_and_the_rest_is_printed(
    run: str, digits: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch exit status 0 where an image is missing from the output."""
    digits[1].write_bytes(b"")
    assert command(monkeypatch, *digits, "--model", run, "--top", 1) == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 2 and f"error: {digits[1]}: the file is empty" in output.err


def test_an_explanation_is_drawn_and_replaced_but_nothing_else(
    run: str, digits: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch a photo overwritten by its explanation."""
    out = tmp_path / "out.png"
    for _ in range(2):
        assert command(monkeypatch, digits[0], "--model", run, "--explain", out) == 0
    drawn = np.asarray(Image.open(out))
    assert drawn.shape[1] == 960 and "explanation written to" in capsys.readouterr().err
    before = digits[1].read_bytes()
    assert command(monkeypatch, digits[0], "--model", run, "--explain", digits[1]) == 2
    assert command(monkeypatch, digits[1], "--model", run, "--explain", digits[1]) == 2
    assert digits[1].read_bytes() == before
    assert command(monkeypatch, digits[0].parent, "--model", run, "--explain", out) == 2
    assert "--explain draws one image" in capsys.readouterr().err
