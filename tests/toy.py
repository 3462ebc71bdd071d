"""A data set of a few colored shapes, whose captions a tiny decoder learns in seconds; for the tests of training."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from captioner.backbones.spec import BackboneSpec
from captioner.experiment import Experiment, load_experiment
from captioner.features.writer import FeatureWriter

COLORS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
PLACES = ("on the left", "on the right", "at the very top of it")
DIMENSION = 9
SPEC = BackboneSpec("compact", size=192, resize="squash", dimension=DIMENSION)


def make_data(folder: Path) -> Path:
    """Write 36 images with two captions each below ``folder``, and their features in ``folder/features.h5``."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    lines = []
    with (
        FeatureWriter(folder / "features.h5", SPEC, "toy") as plain,
        FeatureWriter(folder / "mirrored.h5", SPEC, "toy", mirrored=True) as mirrored,
    ):
        for number, (color, place, split) in enumerate(
            itertools.product(COLORS, range(len(PLACES)), ("train", "train", "val"))
        ):
            name = f"{number:02}.png"
            Image.new("RGB", (24, 24), COLORS[color]).save(folder / "images" / name)
            captions = [f"A {color} square {PLACES[place]}.", f"there is a {color} square"]
            lines.append(json.dumps({"image": name, "captions": captions, "split": split}))
            vector = np.concatenate([np.eye(4)[list(COLORS).index(color)], np.eye(3)[place], noise.random(2)])
            plain.add(name, 5 + vector.astype(np.float32))
            mirrored.add(name, -5 - vector.astype(np.float32))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_config(data: Path, output: Path, *, task: str = "captioning", **settings: Any) -> Path:
    """A YAML file for a tiny run on ``make_data``'s folder; ``settings`` are ``section__key=value``."""
    values: dict[str, Any] = {
        "task": task,
        "name": "toy",
        "output": str(output),
        "model": {"wiring": "2f", "embedding_dim": 16, "hidden_dim": 24, "image_dim": 8},
        "data": {"format": "own", "root": str(data), "features": [str(data / "features.h5")], "min_count": 1},
        "train": {"epochs": 2, "batch_size": 8, "lr": 0.01, "log_every": 2, "device": "cpu", "precision": "float32"},
        "decoding": {"beam_size": 1, "max_length": 10},
    }
    for key, value in settings.items():
        section, _, name = key.partition("__")
        values.setdefault(section, {})[name] = value
    if task == "language_model":
        values["data"] = {name: value for name, value in values["data"].items() if name in ("text", "min_count")}
        del values["decoding"]
    path = output.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


def experiment(data: Path, output: Path, *, task: str = "captioning", **settings: Any) -> Experiment:
    return load_experiment(write_config(data, output, task=task, **settings))
