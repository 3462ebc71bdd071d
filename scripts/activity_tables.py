"""The tables of docs/recognize.md on two small data sets: ARID in six actions, and surveillance clips with fights.

    python -m scripts.activity_tables arid DATA/arid -o tables/arid
    python -m scripts.activity_tables arid-folds DATA/arid -o tables/arid-folds
    python -m scripts.activity_tables fight DATA/fight -o tables/fight
    python -m scripts.activity_tables fight-scenes DATA/fight -o tables/fight-scenes
    python -m scripts.activity_tables fight-neighbors DATA/fight -o tables/fight-neighbors

Features are extracted if they are missing. Every system is trained with three seeds, or `--seeds`, on each fold, and
`python -m eval.recognition` prints the table and writes a page. Ridge regressions on thumbnails follow, if the small
network's pixels have been extracted. A stopped run resumes.

`arid` is the official split, `arid-folds` two folds of its training part by recording. `fight` has five folds of
contiguous numbers. `fight-scenes` has five folds by scene: many cameras filmed a fight and, under a distant number, the
same place without one, so that with contiguous folds a test clip's place is in training with the other label.
`fight-neighbors` tests every fifth clip, while its neighbors, often cut from the same video, are in training: it shows
by how much such a split is too optimistic.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from captioner.backbones import load_backbone
from captioner.cli.program import create_app, run
from captioner.data.activity import read_videos
from captioner.data.images import find_named
from captioner.data.records import read_lines
from captioner.data.video import VIDEOS
from captioner.errors import DataError, UsageError, print_error
from captioner.experiment import parse_experiment
from captioner.features.extract import extract
from captioner.features.store import FeatureStore
from captioner.features.video_spec import VideoSpec
from captioner.files import write_text
from captioner.metrics.classification import Proportion
from captioner.train.trainer import train
from eval import recognition

SINGLE: dict[str, Any] = {"cell": "none", "input_dropout": 0.5}
MEAN: dict[str, Any] = SINGLE | {"pooling": "mean"}
LRCN: dict[str, Any] = {"hidden_dim": 128, "input_dropout": 0.5}
BOTH_WAYS: dict[str, Any] = LRCN | {"bidirectional": True, "pooling": "mean", "window": 32}
SMALL: dict[str, Any] = {"front": "pixels", "hidden_dim": 32, "pooling": "last", "input_dropout": 0.0, "window": 20}
SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    "single frame": SINGLE,
    "mean of frames": MEAN,
    "LRCN": LRCN,
    "single frame, normalized": SINGLE | {"input": "normalized"},
    "LRCN, centered": LRCN | {"input": "centered"},
    "LRCN, differences": LRCN | {"input": "difference"},
    "LRCN, normalized": LRCN | {"input": "normalized"},
    "LRCN, normalized, shuffled": LRCN | {"input": "normalized", "shuffle": True},
    "bidirectional, normalized": BOTH_WAYS | {"input": "normalized"},
    "small network": SMALL | {"dropout": 0.0},
    "small network, mirrored": SMALL | {"dropout": 0.0},
    "LRCN, shuffled": LRCN | {"shuffle": True},
    "LRCN, 256 units, dropout 0.9": {"hidden_dim": 256, "input_dropout": 0.9},
    "LRCN, part held out": LRCN,
    "LRCN, centered, part held out": LRCN | {"input": "centered"},
}
"""Model settings by the name of the system; each system has an RGB and a flow stream."""
HELD_OUT = 0.2
"""Share of training clips that "part held out" systems hold out to choose the flow's weight; others train on all."""
MIRRORED = (50, 16)
"""Epochs and batch size of the small network on mirrored clips, as in the configuration activity-small."""
SAME_SCENE = 0.6
"""Two clips show one scene if the cosine of their mean features, minus the mean of all clips, is above this."""
RIDGE = 1000.0
"""Penalty of the ridge regressions, on features of unit variance; not tuned."""


@dataclass(frozen=True)
class Study:
    """A data set, and the systems that are trained on it."""

    folders: tuple[str, ...]
    """The data set's folders with videos."""
    frames: Mapping[str, int]
    """Frames per video, by stream."""
    gamma: float = 1.0
    folds: int = 0
    epochs: int = 40
    systems: tuple[str, ...] = ()


FIGHT = Study(("fight", "noFight"), folds=5, epochs=15, frames={"RGB": 16, "flow": 16})
BASIC = ("single frame", "LRCN", "single frame, normalized", "LRCN, normalized")
ARID = Study(("train", "validate"), gamma=0.45, frames={"RGB": 16, "flow": 32})
ARID_SYSTEMS = tuple(name for name in SYSTEMS if name not in ("LRCN, shuffled", "LRCN, part held out"))
STUDIES = {
    "arid": replace(ARID, systems=ARID_SYSTEMS),
    "arid-folds": replace(ARID, systems=("single frame", "mean of frames", "LRCN"), folds=2),
    "fight": replace(FIGHT, systems=BASIC),
    "fight-scenes": replace(FIGHT, systems=("single frame", "LRCN", "LRCN, shuffled", "LRCN, part held out")),
    "fight-neighbors": replace(FIGHT, systems=BASIC, folds=0),
}


def activity_tables(
    study: Annotated[str, typer.Argument(help="arid, arid-folds, fight, fight-scenes or fight-neighbors.")],
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for features, runs and the page.")],
    only: Annotated[list[str] | None, typer.Option(help="Only this system; may be repeated.  [default: all]")] = None,
    stream: Annotated[list[str] | None, typer.Option(help="Only RGB, or only flow.  [default: both]")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every system, from 0 on.")] = 3,
) -> None:
    if study not in STUDIES:
        raise UsageError(f"{study}: choose one of {', '.join(STUDIES)}")
    chosen = STUDIES[study]
    names = _chosen("--only", only, chosen.systems)
    streams = _chosen("--stream", stream, tuple(chosen.frames))
    output.mkdir(parents=True, exist_ok=True)
    for folder in chosen.folders:
        if not (output / folder).exists():
            (output / folder).symlink_to((data / folder).resolve(), target_is_directory=True)
    rows = ROWS[study](data, output)
    write_text(output / "videos.tsv", "".join(f"{row}\n" for row in ["video\tlabel\tsplit\tgroup", *rows]))
    runs = []
    for name, one in product(names, streams):
        store = make_store(chosen, output, one, pixels=name.startswith("small"))
        for seed, split in product(range(seeds), range(1, max(chosen.folds, 1) + 1)):
            runs.append(train_one(chosen, output, f"{one}, {name}", store, SYSTEMS[name], seed, split))
    arguments = [*map(str, runs), "-o", str(output / "page"), "--title", study]
    status = recognition.main(arguments)
    if (pixels := output / "rgb-pixels.h5").exists() and not chosen.folds:
        for name, right in thumbnails(pixels, output / "videos.tsv").items():
            low, high = right.interval
            print(f"Ridge regression on {name}, 16 x 16: {right.percent:.1f} % [{low:.1f}, {high:.1f}].")
    sys.exit(status)


def arid_rows(data: Path) -> Iterator[str]:
    """The official lists: number, class and path of each clip; a training clip's first number is its recording."""
    names = dict(line.split("\t")[:2] for line in read_lines(data / "mapping_table_23.txt") if line.strip())
    for part, split in (("train", "train"), ("validate", "test")):
        for line in read_lines(data / f"{part}.txt"):
            _, label, path = line.split("\t")
            recording = re.match(r"[A-Za-z]+_\d+", Path(path).name)
            group = recording[0] if recording else path
            yield f"{part}/{path}\t{names[label]}\t{split}\t{part} {group}"


def fight_rows(data: Path, neighbors: bool = False, scenes: Mapping[str, int] | None = None) -> Iterator[str]:
    """Rows in groups of 30 contiguous numbers, or by ``scenes``; with ``neighbors``, every fifth clip is for test."""
    for line in read_lines(data / "labels.tsv")[1:]:
        path, label, *_ = line.split("\t")
        found = re.search(r"(\d+)\.\w+$", path)
        if found is None:
            raise DataError(f"{data / 'labels.tsv'}: no number in {path}")
        number = int(found[1]) - 1
        split = ("train" if number % 5 else "test") if neighbors else ""
        group = path if neighbors else f"scene {scenes[path]}" if scenes else f"{label} {number // 30}"
        yield f"{path}\t{label}\t{split}\t{group}"


def find_scenes(store: FeatureStore) -> dict[str, int]:
    """The number of each video's scene; a scene is a set of videos that are linked by similar pairs (``SAME_SCENE``).

    Labels are not used.
    """
    means = store.get(store.ids).astype(np.float32).mean(1)  # (N, D)
    means -= means.mean(0)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    alike = means @ means.T > SAME_SCENE
    scenes = np.arange(len(means))
    while (linked := np.where(alike, scenes, len(scenes)).min(1)).tolist() != scenes.tolist():
        scenes = linked
    return dict(zip(store.ids, scenes.tolist(), strict=True))


def thumbnails(store: Path, table: Path) -> dict[str, Proportion]:
    """Test accuracy of ridge regression on gray thumbnails: of the middle frame, and of the changes between frames."""
    videos = read_videos("tsv", table)
    pixels = FeatureStore(store).get([video.image_id for video in videos]).astype(np.float32)
    images = pixels.reshape(*pixels.shape[:2], 3, 16, 4, 16, 4).mean((2, 4, 6)).reshape(*pixels.shape[:2], -1)
    labels = sorted({video.label for video in videos})
    numbers = np.array([labels.index(video.label) for video in videos])
    tested = np.array([video.split == "test" for video in videos])
    inputs = {"the middle frame": images[:, images.shape[1] // 2], "motion": np.abs(np.diff(images, axis=1)).mean(1)}
    found = {}
    for name, values in inputs.items():
        values = (values - values.mean(1, keepdims=True)) / (values.std(1, keepdims=True) + 1e-6)
        center, scale = values[~tested].mean(0), values[~tested].std(0) + 1e-6
        train, test = ((values[rows] - center) / scale for rows in (~tested, tested))
        targets = np.eye(len(labels))[numbers[~tested]]
        weights = train.T @ np.linalg.solve(train @ train.T + RIDGE * np.eye(len(train)), targets - targets.mean(0))
        right = (test @ weights + targets.mean(0)).argmax(1) == numbers[tested]
        found[name] = Proportion(int(right.sum()), len(right))
    return found


def make_store(study: Study, output: Path, stream: str, pixels: bool) -> Path:
    """The feature store of a stream; it is extracted if it does not exist."""
    backbone = load_backbone("pixels:64" if pixels else "efficientnet-lite:0")
    frames = 20 if pixels else study.frames[stream]
    spec = VideoSpec.of(backbone.spec, frames, gamma=study.gamma, flow="dis" if stream == "flow" else "")
    path = output / f"{stream.lower()}{'-pixels' if pixels else ''}.h5"
    if not path.exists():
        print_error(f"extracting {path}")
        report = extract(find_named([str(output)], kind=VIDEOS), backbone, path, video=spec, workers=0)
        for error in report.failed:
            print_error(f"error: {error}")
    return path


def train_one(
    study: Study, output: Path, name: str, store: Path, model: Mapping[str, Any], seed: int, split: int
) -> Path:
    """Train one run unless it is already trained; returns its folder."""
    folder = output / "runs" / f"{re.sub('[^a-z]+', '-', name.lower())}-seed{seed}-split{split}"
    if (folder / "best.safetensors").exists():
        return folder
    epochs, batch_size = MIRRORED if "mirrored" in name else (study.epochs, 32)
    values = {
        "task": "activity",
        "name": name,
        "output": str(folder),
        "model": dict(model),
        "data": {"format": "tsv", "root": str(output / "videos.tsv"), "features": [str(store)]}
        | {"dev_share": HELD_OUT if "held out" in name else 0}
        | {"folds": study.folds, "split": split}
        | ({"shift": 4, "mirror": "mirrored" in name} if model.get("front") == "pixels" else {}),
        "loss": {"label_smoothing": 0.1},
        "train": {"epochs": epochs, "evaluate_every": epochs, "batch_size": batch_size, "seed": seed}
        | {"device": "cpu", "precision": "float32"},
    }
    print_error(f"training {folder}")
    train(parse_experiment(values, name), progress=False)
    return folder


def _chosen(option: str, names: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    """The given ``names``, which must be in ``known``; all of ``known`` if none are given."""
    for name in names or ():
        if name not in known:
            raise UsageError(f"{option} {name}: choose one of {'; '.join(known)}")
    return names or known


def _fight_scenes(data: Path, output: Path) -> Iterator[str]:
    return fight_rows(data, scenes=find_scenes(FeatureStore(make_store(STUDIES["fight-scenes"], output, "RGB", False))))


ROWS: Mapping[str, Callable[[Path, Path], Iterator[str]]] = {
    "arid": lambda data, _: arid_rows(data),
    "arid-folds": lambda data, _: (row.replace("\ttrain\t", "\t\t") for row in arid_rows(data) if "\ttrain\t" in row),
    "fight": lambda data, _: fight_rows(data),
    "fight-scenes": _fight_scenes,
    "fight-neighbors": lambda data, _: fight_rows(data, neighbors=True),
}
"""Lines of a study's table of videos, from the data folder and the output folder."""

app = create_app(__doc__, activity_tables)

if __name__ == "__main__":
    sys.exit(run(app))
