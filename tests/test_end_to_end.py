"""From image files to scores through the commands a person would type: extract, train, caption, score."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from captioner.cli.app import main

COLORS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (40, 70, 210), "yellow": (230, 210, 40)}
SHAPES = ("circle", "square", "triangle")
FLOOR = {"BLEU-4": 75.0, "CIDEr-D": 250.0}
"""Percent; a caption that names neither color nor shape stays far below."""


def draw(color: str, shape: str, place: random.Random) -> Image.Image:
    """A shape of that color somewhere on gray, RGB of 96 x 96 pixels."""
    shade = place.randint(90, 160)
    image = Image.new("RGB", (96, 96), (shade, shade, shade))
    left, top, size = place.randint(5, 35), place.randint(5, 35), place.randint(40, 55)
    box = (left, top, left + size, top + size)
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse(box, COLORS[color])
    elif shape == "square":
        pen.rectangle(box, COLORS[color])
    else:
        pen.polygon([(left, top + size), (left + size, top + size), (left + size // 2, top)], COLORS[color])
    return image


def make_images(folder: Path) -> None:
    """60 images with two captions each: of each of 12 kinds three to train on, one for dev and one for test."""
    (folder / "images").mkdir(parents=True)
    place, lines = random.Random(0), []
    for color, shape in itertools.product(COLORS, SHAPES):
        for number, split in enumerate(("train", "train", "train", "val", "test")):
            name = f"{color}-{shape}-{number}.png"
            draw(color, shape, place).save(folder / "images" / name)
            captions = [f"a {color} {shape} on a gray background", f"there is a {color} {shape} in front of a wall"]
            lines.append(json.dumps({"image": name, "captions": captions, "split": split}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")


def test_a_captioner_for_generated_images_beats_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch any break between the commands, and a model that trains but describes other images."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["captioner", *map(str, arguments)])
        try:
            status = main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    data, store, results = tmp_path / "data", tmp_path / "features.h5", tmp_path / "results.json"
    make_images(data)
    run("extract", data / "images", "-o", store, "--workers", "0")
    settings = {
        "data.root": data,
        "data.features": store,
        "data.min_count": 1,
        "output": tmp_path / "run",
        "model.embedding_dim": 64,
        "model.hidden_dim": 128,
        "model.image_dim": 48,
        "model.dropout": 0,
        "model.image_dropout": 0,
        "model.normalize": "signed_sqrt",
        "loss.label_smoothing": 0,
        "train.batch_size": 8,
        "train.epochs": 20,
        "train.lr": 0.005,
        "train.evaluate_every": 20,
        "train.ema": 0,
    }
    run("train", "own-data", *itertools.chain(*(("--set", f"{key}={value}") for key, value in settings.items())))
    run("caption", "--model", tmp_path / "run", "--features", store, "--split", "test", "-o", results)
    scored = json.loads(run("score", results, "-r", data, "--format", "own", "--split", "test", "--json"))
    scores = {name: scored["scores"][name]["value"] for name in FLOOR}
    assert all(scores[name] > floor for name, floor in FLOOR.items()), scores
    wanted = {entry["image_id"]: entry["caption"] for entry in json.loads(results.read_text())}
    name = "red-circle-4.png"
    assert run("caption", data / "images" / name, "--model", tmp_path / "run").strip() == wanted[name]
