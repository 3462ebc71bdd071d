"""The tables of docs/recognize.md on two small data sets: ARID in six actions, and surveillance clips with fights.

    python -m scripts.activity_tables arid DATA/arid -o tables/arid
    python -m scripts.activity_tables fight DATA/fight -o tables/fight
    python -m scripts.activity_tables fight-neighbors DATA/fight -o tables/fight-neighbors

Features are extracted where they are missing, every system is trained with three seeds (and five folds of contiguous
numbers for the fights), and `python -m eval.recognition` prints the table and writes a page. A run that was stopped
goes on. `fight-neighbors` tests every fifth clip instead, whose neighbors, often cut from one video, are in training:
beside the folds it says how much such a split flatters.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from captioner.backbones import load_backbone
from captioner.cli.program import create_app, run
from captioner.data.images import find_named
from captioner.data.records import read_lines
from captioner.data.video import VIDEOS
from captioner.errors import DataError, UsageError, print_error
from captioner.experiment import parse_experiment
from captioner.features.extract import extract
from captioner.features.video_spec import VideoSpec
from captioner.files import write_text
from captioner.train.trainer import train
from eval import recognition

SEEDS = (0, 1, 2)
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
}
"""Settings of the model by the name of a system, which has an RGB and a flow stream."""


@dataclass(frozen=True)
class Study:
    """A data set and what is trained on it."""

    folders: tuple[str, ...]
    """Folders of the data set that hold videos."""
    frames: Mapping[str, int]
    """Frames of a video by stream."""
    gamma: float = 1.0
    folds: int = 0
    epochs: int = 40
    systems: tuple[str, ...] = tuple(SYSTEMS)


FIGHT = ("single frame", "LRCN", "single frame, normalized", "LRCN, normalized")
STUDIES = {
    "arid": Study(("train", "validate"), gamma=0.45, frames={"RGB": 16, "flow": 32}),
    "fight": Study(("fight", "noFight"), folds=5, epochs=15, systems=FIGHT, frames={"RGB": 16, "flow": 16}),
    "fight-neighbors": Study(("fight", "noFight"), epochs=15, systems=FIGHT, frames={"RGB": 16, "flow": 16}),
}


def activity_tables(
    study: Annotated[str, typer.Argument(help="arid, fight or fight-neighbors.")],
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for features, runs and the page.")],
    only: Annotated[list[str] | None, typer.Option(help="Only this system; may be repeated.  [default: all]")] = None,
) -> None:
    if study not in STUDIES:
        raise UsageError(f"{study}: choose one of {', '.join(STUDIES)}")
    chosen = STUDIES[study]
    names = [name for name in chosen.systems if only is None or name in only]
    output.mkdir(parents=True, exist_ok=True)
    for folder in chosen.folders:
        if not (output / folder).exists():
            (output / folder).symlink_to((data / folder).resolve(), target_is_directory=True)
    rows = arid_rows(data) if study == "arid" else fight_rows(data, neighbors=study == "fight-neighbors")
    write_text(output / "videos.tsv", "".join(f"{row}\n" for row in ["video\tlabel\tsplit\tgroup", *rows]))
    runs = []
    for name in names:
        for stream in ("RGB", "flow"):
            store = make_store(chosen, output, stream, pixels=name == "small network")
            for seed in SEEDS:
                for split in range(1, max(chosen.folds, 1) + 1):
                    runs.append(train_one(chosen, output, f"{stream}, {name}", store, SYSTEMS[name], seed, split))
    arguments = [*map(str, runs), "-o", str(output / "page"), "--title", study]
    sys.exit(recognition.main(arguments))


def arid_rows(data: Path) -> Iterator[str]:
    """The official lists: number, class and path of each clip; a training clip's first number is its recording."""
    names = dict(line.split("\t")[:2] for line in read_lines(data / "mapping_table_23.txt") if line.strip())
    for part, split in (("train", "train"), ("validate", "test")):
        for line in read_lines(data / f"{part}.txt"):
            _, label, path = line.split("\t")
            recording = re.match(r"[A-Za-z]+_\d+", Path(path).name)
            group = recording[0] if recording else path
            yield f"{part}/{path}\t{names[label]}\t{split}\t{part} {group}"


def fight_rows(data: Path, neighbors: bool) -> Iterator[str]:
    """Groups are blocks of 30 contiguous numbers; with ``neighbors`` every fifth clip is tested instead."""
    for line in read_lines(data / "labels.tsv")[1:]:
        path, label, *_ = line.split("\t")
        found = re.search(r"(\d+)\.\w+$", path)
        if found is None:
            raise DataError(f"{data / 'labels.tsv'}: no number in {path}")
        number = int(found[1]) - 1
        split = ("train" if number % 5 else "test") if neighbors else ""
        yield f"{path}\t{label}\t{split}\t{path if neighbors else f'{label} {number // 30}'}"


def make_store(study: Study, output: Path, stream: str, pixels: bool) -> Path:
    """The feature store of a stream, extracted if it is not there yet."""
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
    """Train one run, if it is not trained yet; returns its folder."""
    folder = output / "runs" / f"{re.sub('[^a-z]+', '-', name.lower())}-seed{seed}-split{split}"
    if (folder / "best.safetensors").exists():
        return folder
    values = {
        "task": "activity",
        "name": name,
        "output": str(folder),
        "model": dict(model),
        "data": {"format": "tsv", "root": str(output / "videos.tsv"), "features": [str(store)], "dev_share": 0}
        | {"folds": study.folds, "split": split}
        | ({"shift": 4} if model.get("front") == "pixels" else {}),
        "loss": {"label_smoothing": 0.1},
        "train": {"epochs": study.epochs, "evaluate_every": study.epochs, "batch_size": 32, "seed": seed}
        | {"device": "cpu", "precision": "float32"},
    }
    print_error(f"training {folder}")
    train(parse_experiment(values, name), progress=False)
    return folder


app = create_app(__doc__, activity_tables)

if __name__ == "__main__":
    sys.exit(run(app))
