"""Test results of recognizers: systems of several seeds and splits, and the fusion of two streams."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.config import to_mapping
from captioner.data.activity import LabeledVideo, read_videos
from captioner.data.records import ClassNames
from captioner.errors import DataError, UsageError
from captioner.features.video_spec import VideoSpec
from captioner.metrics.base import Scored
from captioner.metrics.classification import score_labels
from captioner.metrics.significance import SEED, TRIALS
from captioner.predictors import find_model
from captioner.tasks.activity import AT_ONCE, ActivityConfig, open_stores, read_features

FIXED = {"1/2 RGB, 1/2 flow": 1 / 2, "1/3 RGB, 2/3 flow": 2 / 3}
"""Weight of the flow, by the name of the fusion (Donahue et al. 2015, table 1)."""
ON_DEV = "weight chosen on dev"
GRID = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class Part:
    """The videos of one split (test or dev) and a run's predictions for them."""

    videos: Sequence[LabeledVideo]
    probabilities: np.ndarray
    """Class probabilities, (N, C)."""
    classes: ClassNames

    @property
    def accuracy(self) -> float:
        """The share of videos whose most probable class is correct."""
        labels = [self.classes.number(video.label) for video in self.videos]
        return float((self.probabilities.argmax(1) == labels).mean())

    def fused(self, other: Part, weight: float) -> Part:
        """The mean of both runs' probabilities, with ``weight`` for ``other``; ``DataError`` if the videos differ."""
        if [*self.videos] != [*other.videos] or self.classes != other.classes:
            raise DataError("two runs that are fused must be tested on the same videos and classes")
        return Part(self.videos, (1 - weight) * self.probabilities + weight * other.probabilities, self.classes)


@dataclass(frozen=True)
class Run:
    """One training run: its test videos and, if it has some, its dev videos."""

    test: Part
    dev: Part | None
    note: str = ""
    """Values chosen for this run, such as a fusion weight."""


@dataclass
class System:
    """Runs that differ only in their seed and split."""

    name: str
    stream: str
    """RGB, flow or both."""
    settings: str
    """Settings of model, data and loss, without features and split, as JSON: streams with equal ones are fused."""
    runs: dict[tuple[int, int], Run] = field(default_factory=dict)
    """Runs by seed and split."""
    streams: tuple[str, ...] = ()
    """Names of the fused systems."""

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for seed, _ in self.runs})

    def predictions(self, seed: int) -> dict[str, str]:
        """The predicted class of each test video of all splits, by id."""
        return {video: one.classes[int(row.argmax())] for video, one, row in self._rows(seed)}

    def confidence(self, seed: int) -> dict[str, float]:
        """The probability of the correct class, by id."""
        labels = self.labels
        return {video: float(row[one.classes.number(labels[video])]) for video, one, row in self._rows(seed)}

    @property
    def labels(self) -> dict[str, str]:
        """The class of each test video, by id."""
        return {name: video.label for name, video in self.videos.items()}

    @property
    def videos(self) -> dict[str, LabeledVideo]:
        """The test videos of all splits by id; if several splits test the same video, by split and id."""
        seed = self.seeds[0]
        several = len({split for one, split in self.runs if one == seed}) > 1
        found = {}
        for (one, split), run in sorted(self.runs.items()):
            if one == seed:
                for video in run.test.videos:
                    name = f"{split}: {video.image_id}" if several else video.image_id
                    found[name] = video
        return found

    @property
    def right(self) -> np.ndarray:
        """The share of seeds that recognize each test video, (N,), 0 to 1."""
        seeds = [self.predictions(seed) for seed in self.seeds]
        return np.array([np.mean([found[name] == label for found in seeds]) for name, label in self.labels.items()])

    @property
    def scored(self) -> list[Scored]:
        """The accuracy of each seed."""
        return [score_labels(self.labels, self.predictions(seed), split="test") for seed in self.seeds]

    def _rows(self, seed: int) -> list[tuple[str, Part, np.ndarray]]:
        parts = [run.test for (one, _), run in sorted(self.runs.items()) if one == seed]
        rows = [(part, row) for part in parts for row in part.probabilities]
        return [(name, part, row) for name, (part, row) in zip(self.videos, rows, strict=True)]


def read_systems(paths: Sequence[Path]) -> list[System]:
    """The systems of training runs, in the order of their first runs; raises ``UsageError`` for runs given twice."""
    systems: dict[str, System] = {}
    for path in paths:
        checkpoint = load_checkpoint(find_model(path))
        if checkpoint.task != "activity":
            raise UsageError(f"{path}: was trained for the task {checkpoint.task}, not for activity")
        settings = to_mapping(checkpoint.config)
        train = dict(checkpoint.extra.get("train", {}))
        seed, split = int(train.pop("seed", 0)), int(settings["data"].pop("split"))
        name = str(checkpoint.extra.get("name", "")) or path.name
        key = json.dumps([name, settings, train], sort_keys=True)
        data = {item: value for item, value in settings["data"].items() if not item.startswith("features")}
        alike = json.dumps(settings | {"data": data}, sort_keys=True)
        system = systems.setdefault(key, System(name, _stream(checkpoint), alike))
        if (seed, split) in system.runs:
            raise UsageError(f"{path}: a second run of {name} with seed {seed} and split {split}; give each once")
        system.runs[seed, split] = read_run(checkpoint)
    found = list(systems.values())
    for system in found:
        _check_splits(system)
        if sum(other.name == system.name for other in found) > 1:
            raise UsageError(f"two systems are called {system.name}; give them names of their own with --set name=...")
    return found


def read_run(checkpoint: Checkpoint) -> Run:
    """Predict the test and dev videos of a checkpoint's configuration, from the stores that it names."""
    config: ActivityConfig = checkpoint.config
    data = config.data
    videos = read_videos(data.format, data.root, split=data.split, folds=data.folds, dev_share=data.dev_share)
    parts = {name: [video for video in videos if video.split == name] for name in ("test", "val")}
    if not parts["test"]:
        raise DataError(f"{data.root}: no video is for testing; give some the split test, or use data.folds")
    return Run(_predict(checkpoint, parts["test"]), _predict(checkpoint, parts["val"]) if parts["val"] else None)


def fuse(systems: Sequence[System]) -> list[System]:
    """Fuse each RGB system with the flow system of the same settings, or with the only one, by each weight."""
    streams = {name: [system for system in systems if system.stream == name] for name in ("RGB", "flow")}
    only = len(streams["RGB"]) == len(streams["flow"]) == 1
    fused = []
    for one, other in product(streams["RGB"], streams["flow"]):
        if (only or one.settings == other.settings) and one.runs.keys() == other.runs.keys():
            fused += [_fused(one, other, name) for name in (*FIXED, ON_DEV) if name in FIXED or _have_dev(one)]
    return fused


def p_value(one: System, other: System) -> float:
    """Two-sided, by approximate randomization: systems are exchanged for each test video with probability 1/2.

    Seeds of a system are averaged first, so that a video counts once. Differences equal to the observed one count too:
    few videos allow few distinct differences, and without the equal ones a difference of three videos would be
    significant. Raises ``DataError`` if the videos differ.
    """
    if [*one.labels] != [*other.labels]:
        raise DataError(f"{one.name} and {other.name} were tested on different videos")
    differences = one.right - other.right
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], (TRIALS, len(differences)))
    as_large = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    return float((as_large.sum() + 1) / (TRIALS + 1))


def _fused(one: System, other: System, how: str) -> System:
    system = System(f"{one.name} + {other.name}, {how}", "both", one.settings, streams=(one.name, other.name))
    for key, run in one.runs.items():
        second = other.runs[key]
        weight = FIXED[how] if how in FIXED else _best_weight(run.dev, second.dev)
        system.runs[key] = Run(run.test.fused(second.test, weight), None, "" if how in FIXED else f"{weight:.2f}")
    return system


def _best_weight(one: Part | None, other: Part | None) -> float:
    """The weight of ``other`` with the highest accuracy on dev; of equal ones, the one closest to 1/2."""
    assert one is not None and other is not None, "fuse asks for dev videos"
    scores = [one.fused(other, weight).accuracy for weight in GRID]
    return float(max(zip(scores, -abs(GRID - 0.5), GRID, strict=True))[2])


def _have_dev(system: System) -> bool:
    return all(run.dev is not None for run in system.runs.values())


def _stream(checkpoint: Checkpoint) -> str:
    names = {spec.stream for spec in checkpoint.inputs if isinstance(spec, VideoSpec)}
    return names.pop() if len(names) == 1 else "both"


def _predict(checkpoint: Checkpoint, videos: Sequence[LabeledVideo]) -> Part:
    stores = open_stores(checkpoint.config.data.features)
    for store, spec in zip(stores, checkpoint.inputs, strict=True):
        if store.spec != spec:
            raise DataError(f"{store.path}: other features than those that the run was trained on")
    ids = [video.image_id for video in videos]
    found = [
        checkpoint.model.predict(read_features(stores, ids[first : first + AT_ONCE]).float())
        for first in range(0, len(ids), AT_ONCE)
    ]
    return Part(videos, torch.cat(found).numpy(), checkpoint.outputs)


def _check_splits(system: System) -> None:
    """Raise ``UsageError`` unless all seeds have the same splits."""
    splits: Mapping[int, list[int]] = {
        seed: sorted(split for one, split in system.runs if one == seed) for seed in system.seeds
    }
    if len({tuple(some) for some in splits.values()}) > 1:
        raise UsageError(f"{system.name}: its seeds were trained on different splits ({splits}); give all of them")
