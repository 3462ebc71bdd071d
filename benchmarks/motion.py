"""Motion in recognizers: classes that no single frame distinguishes, which differ only in the order of frames.

    python -m benchmarks.motion                     # a table: single frames, their mean and LRCN on four problems
    python -m benchmarks.motion --videos 400        # fewer videos than by default
    python -m benchmarks.run motion                 # rows for the CSV file: single frames and LRCN over chance

Four problems: the direction of a moving spot, its speed, the direction of a rotating bar, and which of two events comes
first. Each video starts at a random phase, so that single frames of both classes have the same distribution: a
classifier of single frames is at chance (50 %), and so is one of the mean over frames. Features are the pixels of
frames of 8 x 8, so that only the sequence model is measured. A label at every frame, as in the paper, also counts the
frames before the first event, which contain no information; the last output alone does not.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.measure import AT_LEAST, AT_MOST, Measurement, once
from captioner.cli.program import create_app, run
from captioner.errors import print_error
from captioner.experiment import parse_experiment
from captioner.features.video_spec import VideoSpec
from captioner.features.writer import FeatureWriter
from captioner.tables import render

SIDE = 8
FRAMES = 16
MODELS: Mapping[str, Mapping[str, object]] = {
    "single frame": {"cell": "none"},
    "mean of frames": {"cell": "none", "pooling": "mean"},
    "LRCN": {"cell": "lstm"},
    "LRCN, last output": {"cell": "lstm", "pooling": "last"},
    "LRCN, frames shuffled": {"cell": "lstm", "shuffle": True},
}
"""Settings of ``model``, by the name of a row."""
VIDEOS = 1000
"""Number of videos of each problem for training, and for testing."""
CHANCE = 50.0
"""In percent: two classes with equally many videos."""
GOALS = {"single frame": (1.1, AT_MOST), "LRCN": (1.9, AT_LEAST), "LRCN, last output": (1.9, AT_LEAST)}
"""Accuracy over chance that a model should have: at most 55 % without the order of frames, at least 95 % with it."""


def spot(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Images (T, SIDE, SIDE), 0 to 255, of a spot at ``across``, ``down`` (T,), in pixels, on a torus."""
    places = np.arange(SIDE)
    return 255 * _bump(across[:, None] - places)[:, None, :] * _bump(down[:, None] - places)[:, :, None]


def direction(second: bool, random: np.random.Generator) -> np.ndarray:
    """A spot that moves to the right, or ``second`` to the left."""
    steps = np.arange(FRAMES) * (-0.7 if second else 0.7)
    return spot(random.uniform(0, SIDE) + steps, np.full(FRAMES, random.uniform(0, SIDE)))


def speed(second: bool, random: np.random.Generator) -> np.ndarray:
    """A spot that moves slowly, or ``second`` three times as fast, to either side."""
    steps = np.arange(FRAMES) * random.choice([-1, 1]) * (1.5 if second else 0.5)
    return spot(random.uniform(0, SIDE) + steps, np.full(FRAMES, random.uniform(0, SIDE)))


def rotation(second: bool, random: np.random.Generator) -> np.ndarray:
    """A bar that turns clockwise, or ``second`` counterclockwise."""
    angles = random.uniform(0, np.pi) + np.arange(FRAMES) * (-0.35 if second else 0.35)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    distances = x * np.sin(angles)[:, None, None] - y * np.cos(angles)[:, None, None]
    return 255 * np.exp(-(distances**2))


def order(second: bool, random: np.random.Generator) -> np.ndarray:
    """A flash at the top and later one at the bottom, or ``second`` the other way around."""
    times = np.sort(random.choice(np.arange(1, FRAMES - 1), 2, replace=False))
    images = np.zeros((FRAMES, SIDE, SIDE))
    for time, down in zip(times, (6, 1) if second else (1, 6), strict=True):
        images[time] = 255 * _bump(down - np.arange(SIDE))[:, None]
    return images


PROBLEMS: Mapping[str, Callable[[bool, np.random.Generator], np.ndarray]] = {
    "direction": direction,
    "speed": speed,
    "rotation": rotation,
    "order": order,
}


def write_problem(folder: Path, problem: str, train: int, test: int, seed: int = 0) -> None:
    """Write a feature store ``features.h5`` and the table ``videos.tsv`` of videos for training and testing."""
    random = np.random.default_rng([seed, *problem.encode()])
    spec = VideoSpec(key="pixels of a drawing", dimension=3 * SIDE**2, frames=FRAMES, size=SIDE)
    lines = ["video\tlabel\tsplit"]
    with FeatureWriter(folder / "features.h5", spec) as writer:
        for number in range(train + test):
            noisy = PROBLEMS[problem](bool(number % 2), random) + random.normal(0, 8, (FRAMES, SIDE, SIDE))
            name = f"{number}.mp4"
            writer.add(name, np.repeat(noisy.reshape(FRAMES, -1), 3, 1).astype(np.float32))
            lines.append(f"{name}\t{problem} {number % 2}\t{'train' if number < train else 'test'}")
    (folder / "videos.tsv").write_text("\n".join(lines) + "\n")


def score(folder: Path, settings: Mapping[str, object], *, hidden: int = 64, epochs: int = 40, seed: int = 0) -> float:
    """The accuracy in percent, on the test videos in ``folder``, of a model trained on its training videos."""
    from captioner.checkpoint import load_checkpoint
    from captioner.train.trainer import train
    from eval.recognizers import read_run

    experiment = parse_experiment(
        {
            "task": "activity",
            "output": str(folder / "run"),
            "model": {"hidden_dim": hidden, "input_dropout": 0.1, "dropout": 0.1, **settings},
            "data": {"format": "tsv", "root": str(folder), "features": [str(folder / "features.h5")], "dev_share": 0},
            "train": {"epochs": epochs, "evaluate_every": epochs, "batch_size": 32, "lr": 3e-3, "device": "cpu"}
            | {"seed": seed, "precision": "float32"},
        },
        "benchmarks.motion",
    )
    train(experiment, resume=False, progress=False)
    return 100 * read_run(load_checkpoint(folder / "run" / "best.safetensors")).test.accuracy


def measure(videos: int = VIDEOS) -> list[Measurement]:
    """Accuracy over chance of single frames and of LRCN on each problem."""
    found = _scores(videos, list(GOALS))
    return [
        once(f"{problem} of motion: {name} over chance", "%", scores[name], CHANCE, *goal)
        for problem, scores in found.items()
        for name, goal in GOALS.items()
    ]


def motion(
    videos: Annotated[
        int, typer.Option(min=2, help="Videos of each problem for training, and as many for testing.")
    ] = VIDEOS,
) -> None:
    found = _scores(videos, list(MODELS))
    rows = [[problem, *(f"{score:.1f}" for score in scores.values())] for problem, scores in found.items()]
    print(render(["accuracy, %", *MODELS], rows, [True, *[False] * len(MODELS)], "markdown"))


def _scores(videos: int, models: Sequence[str]) -> dict[str, dict[str, float]]:
    """Accuracy in percent by problem and model."""
    found = {}
    for problem in PROBLEMS:
        print_error(problem)
        with tempfile.TemporaryDirectory() as folder:
            write_problem(Path(folder), problem, videos, videos)
            found[problem] = {name: score(Path(folder), MODELS[name]) for name in models}
    return found


def _bump(distance: np.ndarray) -> np.ndarray:
    """A bell curve over distances in pixels around a circle of SIDE."""
    around: np.ndarray = (distance + SIDE / 2) % SIDE - SIDE / 2
    bell: np.ndarray = np.exp(-(around**2))
    return bell


app = create_app(__doc__, motion)

if __name__ == "__main__":
    sys.exit(run(app))
