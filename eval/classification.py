"""Evaluate classifiers of images: accuracy with intervals and p-values, and with -o a page to send to a colleague.

    python -m eval.classification runs/cifar10-* -o reports/cifar10
    python -m eval.classification runs/cifar10-* --baseline "CNN, CIFAR-10"

RUNS are folders or checkpoints of the task classification, all on one data set. Runs that differ only in their seed and
folder are one system, whose score is the mean over them, with the standard deviation. The other systems are compared
with the first one, or with --baseline, on the same images.

stdout gets the table in Markdown. -o FOLDER adds index.html, a self-contained page with the confusion matrix, a gallery
of errors and first-layer kernels. Predictions are kept in that folder for later reports.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.cli.program import create_app, run
from captioner.config import to_mapping
from captioner.data.labeled import LabeledImages, hold_out, read_labeled
from captioner.data.records import ClassNames, read_json
from captioner.devices import find_device
from captioner.errors import DataError, UsageError, print_error
from captioner.explain import kernel_tiles, sheet
from captioner.files import check_output, write_text
from captioner.metrics.base import Scored
from captioner.metrics.classification import accuracy, compare_labels, confusion_matrix, score_labels
from captioner.metrics.significance import Estimate, compare_systems
from captioner.predictors import find_model
from captioner.provenance import provenance
from captioner.tasks.images.learner import ImageLearner, predict_logits
from captioner.train.runlog import read_log
from eval import figures
from eval.classes import confusion
from eval.command import Device, Split
from eval.page import Block, Card, Cards, Code, Figure, Heading, Table, Text, to_markdown
from eval.report import MARKDOWN, PAGE, write
from eval.sections import format_p
from eval.systems import Run, group

METRIC = "accuracy"
PANELS = (("dev_loss", "dev loss (nats)"), (METRIC, "dev accuracy (%)"))
ERRORS = 12
LARGER = 160  # side in pixels of the images in a gallery


@dataclass(frozen=True)
class Predictions:
    """A model's predictions, by image id."""

    labels: dict[str, str]
    probabilities: dict[str, float]
    """Probabilities of these labels."""


@dataclass(frozen=True)
class Classifier:
    """A checkpoint, its predictions and its run in the report."""

    checkpoint: Checkpoint
    predicted: Predictions
    run: Run


@dataclass(frozen=True)
class Evaluated:
    """Systems on the same images; the first is the baseline."""

    systems: dict[str, list[Classifier]]
    truth: dict[str, str]
    images: LabeledImages
    classes: ClassNames
    estimates: dict[str, Estimate]
    signature: str

    @property
    def best(self) -> str:
        """The system with the highest accuracy."""
        return max(self.estimates, key=lambda name: self.estimates[name].score)


def classification(
    context: typer.Context,
    runs: Annotated[list[Path], typer.Argument(help="Training runs' folders or checkpoints.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the page.")] = None,
    baseline: Annotated[str, typer.Option(help="Name of the system to compare the others with.")] = "",
    split: Split = "test",
    root: Annotated[str, typer.Option(help="The data set's folder, if not where it was in training.")] = "",
    errors: Annotated[int, typer.Option(help="Most certain errors that the page shows; 0 for none.")] = ERRORS,
    title: Annotated[str, typer.Option(help="The data set's name on the page.")] = "",
    device: Device = "cpu",
) -> None:
    if output is not None:
        check_output("-o", output / "index.html", PAGE, runs)
        check_output("-o", output / "report.md", MARKDOWN, runs)
    checkpoints = {path: _load(path) for path in runs}
    evaluated = evaluate(checkpoints, split, root, baseline, device, output)
    heading = f"{title or _data(next(iter(checkpoints.values()))).format} {split}"
    blocks = table(evaluated)
    print(to_markdown(heading, blocks), end="")
    if output is not None:
        write(output, heading, [*blocks, *illustrations(evaluated, errors), *reproduce(evaluated, context.obj)])


def evaluate(
    checkpoints: Mapping[Path, Checkpoint], split: str, root: str, baseline: str, device: str, folder: Path | None
) -> Evaluated:
    """Predict, group and score a split with all checkpoints; raises ``DataError`` if their images are unlike."""
    first = next(iter(checkpoints.values()))
    for path, checkpoint in checkpoints.items():
        if _shape(checkpoint) != _shape(first):
            raise DataError(
                f"{path}: was trained on other images ({_shape(checkpoint)}) than the first ({_shape(first)})"
            )
        if checkpoint.outputs.to_list() != first.outputs.to_list():
            raise DataError(f"{path}: was trained on other classes than the first")
        if split != "test" and _data(checkpoint).val != _data(first).val:
            raise DataError(f"{path}: held out {_data(checkpoint).val} images (data.val), the first {_data(first).val}")
    classes, images = read_split(first, split, root)
    truth = dict(zip(images.ids, (classes[number] for number in images.labels), strict=True))
    made = {}
    for path, checkpoint in checkpoints.items():
        predicted = _predicted(path, checkpoint, images, classes, device, folder)
        classifier = Classifier(checkpoint, predicted, _run(path, checkpoint, predicted))
        made[id(classifier.run)] = classifier
    grouped = group([classifier.run for classifier in made.values()])
    systems = {name: [made[id(member)] for member in members] for name, members in grouped.items()}
    if baseline and baseline not in systems:
        raise UsageError(f"--baseline {baseline}: no such system; there are: {'; '.join(systems)}")
    if baseline:
        systems = {baseline: systems[baseline], **systems}
    scored = {
        name: [score_labels(truth, one.predicted.labels, split=split) for one in members]
        for name, members in systems.items()
    }
    return Evaluated(systems, truth, images, classes, estimate(systems, scored, truth), _signature(scored))


def estimate(
    systems: Mapping[str, Sequence[Classifier]], scored: Mapping[str, Sequence[Scored]], truth: Mapping[str, str]
) -> dict[str, Estimate]:
    """Accuracy of each system with its interval and p-value against the first.

    For single runs both are exact: Wilson's interval and McNemar's test. Several runs are resampled as captions are.
    """
    found = {name: scores[METRIC] for name, scores in compare_systems(scored).items()}
    base = next(iter(systems))
    for name, (one, *others) in systems.items():
        if others:
            continue
        low, high = accuracy(truth, one.predicted.labels).interval
        found[name] = replace(found[name], low=low, high=high)
        if name != base and len(systems[base]) == 1:
            test = compare_labels(truth, systems[base][0].predicted.labels, one.predicted.labels)
            found[name] = replace(found[name], p_randomization=test.p)
    return found


def read_split(checkpoint: Checkpoint, split: str, root: str = "") -> tuple[ClassNames, LabeledImages]:
    """The images of a split of the model's data set; val may be the images held out from train."""
    data = _data(checkpoint)
    classes, splits = read_labeled(data.format, root or data.root, data.side, data.channels)
    if classes.to_list() != checkpoint.outputs.to_list():
        raise DataError(f"{root or data.root}: has other classes than {checkpoint.path}")
    found = dict(splits)
    if "val" not in found and "train" in found and split != "test":
        found["train"], found["val"] = hold_out(found["train"], data.val)
    if split not in found:
        raise DataError(f"{root or data.root}: no images in split {split}; there are: {', '.join(found)}")
    return classes, found[split]


def classify(checkpoint: Checkpoint, images: LabeledImages, classes: ClassNames, device: torch.device) -> Predictions:
    """A model's most probable class of each image."""
    data = _data(checkpoint)
    spec: Any = checkpoint.inputs[0]
    learner = ImageLearner(checkpoint.model, spec, data.channels).to(device)
    logits = predict_logits(learner, torch.from_numpy(images.pixels).to(device), data.crop)
    best = logits.softmax(1).max(1)
    labels = [classes[number] for number in best.indices.tolist()]
    return Predictions(
        dict(zip(images.ids, labels, strict=True)), dict(zip(images.ids, best.values.tolist(), strict=True))
    )


def table(evaluated: Evaluated) -> list[Block]:
    """One sentence, the table of all systems, and a note that explains its numbers."""
    base, best = next(iter(evaluated.systems)), evaluated.best
    top = evaluated.estimates[best]
    summary = f"Best: {best} with {top.score:.2f} % of {len(evaluated.truth):,} images right"
    rows = []
    for name, members in evaluated.systems.items():
        one = evaluated.estimates[name]
        spread = "" if one.spread is None else f" ± {one.spread:.2f}"
        gap = ""
        if name != base:
            p = one.p_bootstrap if one.p_randomization is None else one.p_randomization
            gap = f"{one.score - evaluated.estimates[base].score:+.2f}\n{format_p(p)}".replace("-", "−")
        model, train = members[0].checkpoint.model, members[0].checkpoint.extra["train"]
        size = sum(parameter.numel() for parameter in model.parameters())
        interval = f"[{one.low:.2f}, {one.high:.2f}]"
        rows.append(
            [name, str(len(members)), f"{size:,}", str(train["epochs"]), f"{one.score:.2f}{spread}\n{interval}", gap]
        )
    header = ["system", "runs", "parameters", "epochs", "accuracy (%)", f"against {base}"]
    strong = frozenset({list(evaluated.systems).index(best)})
    note = (
        "± is the standard deviation over runs, which differ in their seed; each is the epoch that was best on dev. "
        "Intervals, 95 %, and p-values are about the choice of images: Wilson's and McNemar's exact test for single "
        "runs, bootstrap and approximate randomization for several; not corrected for the number of comparisons."
    )
    return [Text(f"{summary}."), Table(header, rows, strong=strong), Text(note, note=True), Code(evaluated.signature)]


def illustrations(evaluated: Evaluated, errors: int) -> list[Block]:
    """Bars, learning curves, confusion matrix, gallery of errors and first-layer kernels."""
    estimates = {name: {METRIC: one} for name, one in evaluated.estimates.items()}
    logs = {name: [one.run.log for one in members if one.run.log] for name, members in evaluated.systems.items()}
    best = evaluated.best
    matrix = sum(
        confusion_matrix(evaluated.truth, one.predicted.labels, evaluated.classes.names)
        for one in evaluated.systems[best]
    )
    curves = figures.curves({name: runs for name, runs in logs.items() if runs}, PANELS)
    return [
        Figure("scores", figures.bars(estimates, [METRIC]), "Accuracy in percent with 95 % intervals."),
        Figure("curves", curves, "Dev loss and dev accuracy during training."),
        Heading(f"What {best} confuses"),
        *confusion(np.asarray(matrix), evaluated.classes.names),
        *gallery(evaluated, errors),
        *kernels(evaluated),
    ]


def gallery(evaluated: Evaluated, count: int) -> list[Block]:
    """The most certain errors of the best system's first run."""
    one = evaluated.systems[evaluated.best][0]
    wrong = [item for item, label in evaluated.truth.items() if one.predicted.labels[item] != label]
    wrong.sort(key=lambda item: -one.predicted.probabilities[item])
    if not count or not wrong:
        return []
    rows = {item: row for row, item in enumerate(evaluated.images.ids)}
    cards = [
        Card(
            _jpeg(evaluated.images.pixels[rows[item]]),
            f"{one.predicted.labels[item]}, {100 * one.predicted.probabilities[item]:.1f} %",
            [("true class", evaluated.truth[item]), ("image", item)],
            item,
        )
        for item in wrong[:count]
    ]
    return [Heading(f"The most certain errors of {evaluated.best} ({len(wrong):,} in all)"), Cards(cards)]


def kernels(evaluated: Evaluated) -> list[Block]:
    """The kernels of the first convolution in each system's first run."""
    cards = []
    for name, members in evaluated.systems.items():
        layers = members[0].checkpoint.model.modules()
        first = next((layer for layer in layers if isinstance(layer, torch.nn.Conv2d)), None)
        if first is not None:
            drawn = sheet(kernel_tiles(first.weight.detach().cpu().numpy()), 8 * 40, 8)
            shape = " x ".join(map(str, first.weight.shape))
            cards.append(Card(_encoded(drawn), name, [("shape", shape)], f"kernels of {name}"))
    return [Heading("Kernels of the first convolution"), Cards(cards)] if cards else []


def reproduce(evaluated: Evaluated, arguments: Sequence[str]) -> list[Block]:
    """The command behind the page, and the provenance of the runs."""
    origins = [
        "  ".join([name, one.run.label, *(f"{key} {value}" for key, value in one.run.metadata.items())])
        for name, members in evaluated.systems.items()
        for one in members
    ]
    made = ", ".join(f"{key} {value}" for key, value in provenance().items())
    command = shlex.join(["python", "-m", "eval.classification", *arguments])
    return [Heading("To reproduce"), Code(command), Code("\n".join(origins)), Text(f"Made with {made}.", note=True)]


def _load(path: Path) -> Checkpoint:
    checkpoint = load_checkpoint(find_model(path))
    if checkpoint.task != "classification":
        raise UsageError(f"{path}: is of the task {checkpoint.task}, not classification")
    return checkpoint


def _data(checkpoint: Checkpoint) -> Any:
    return checkpoint.config.data


def _shape(checkpoint: Checkpoint) -> str:
    """The properties that all models of a report must share."""
    data = _data(checkpoint)
    return f"{data.format}, {data.side} pixels, {data.channels} channels"


def _signature(scored: Mapping[str, Sequence[Scored]]) -> str:
    (first, *_), *_ = scored.values()
    return first[METRIC].signature


def _run(path: Path, checkpoint: Checkpoint, predicted: Predictions) -> Run:
    """The run as ``eval.systems`` groups it: by its configuration without seed and folder."""
    train = dict(checkpoint.extra.get("train", {}))
    seed = train.pop("seed", 0)
    name = str(checkpoint.extra.get("name", ""))
    log = (path if path.is_dir() else path.parent) / "log.jsonl"
    metadata = {"checkpoint": str(path), "sha256": checkpoint.digest[:16], "epoch": str(checkpoint.extra.get("epoch"))}
    config = to_mapping(replace(checkpoint.config, data=replace(_data(checkpoint), root="")))
    return Run(
        name or path.stem,
        f"seed {seed}",
        predicted.labels,
        "",
        json.dumps([name, config, train], sort_keys=True),
        tuple(line for line in read_log(log) if line["kind"] == "epoch") if log.is_file() else (),
        metadata=metadata,
    )


def _predicted(
    path: Path, checkpoint: Checkpoint, images: LabeledImages, classes: ClassNames, device: str, folder: Path | None
) -> Predictions:
    """The model's predictions, cached in ``folder`` under a name that depends on everything that could change them."""
    key = hashlib.sha256(json.dumps([checkpoint.digest, images.ids]).encode() + images.pixels.tobytes()).hexdigest()
    kept = None if folder is None else folder / "predictions" / f"{path.name}-{key[:12]}.json"
    if kept is not None and kept.is_file():
        labels, probabilities = read_json(kept)
        return Predictions(labels, probabilities)
    print_error(f"classifying {len(images)} images with {path}")
    found = classify(checkpoint, images, classes, find_device(device))
    if kept is not None:
        write_text(kept, json.dumps([found.labels, found.probabilities]) + "\n")
    return found


def _jpeg(pixels: np.ndarray) -> bytes:
    """Enlarge a small image (S, S, C) without smoothing its pixels."""
    factor = max(1, LARGER // len(pixels))
    image = Image.fromarray(pixels.squeeze())
    return _encoded(image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST))


def _encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92)
    return stream.getvalue()


app = create_app(__doc__, classification)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
