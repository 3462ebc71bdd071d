"""The record of a run: a JSON-lines log and the training curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from captioner.files import atomic_path, write_text
from captioner.optional import require
from captioner.progress import Progress, progress_bar

COLORS = ("tab:green", "tab:orange", "tab:purple", "tab:brown")
REWARD = "train_reward"


class RunLog:
    """``log.jsonl``: one object per line, of kind ``start``, ``steps`` (at regular intervals), ``epoch`` or ``end``."""

    def __init__(self, path: Path, resume_at: int | None, epoch: int = 1) -> None:
        """Append to ``path``, after removing entries later than step ``resume_at``; None starts a new log.

        ``epoch`` is the one that resumes: its last step may be done, but not its evaluation.
        """
        self.path = path
        before = read_log(path) if resume_at is not None and path.exists() else []
        kept = [r for r in before if r["step"] <= (resume_at or 0) and r["kind"] != "end" and not _repeats(r, epoch)]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one object with its ``kind`` and the number of optimizer ``step``s done."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")


def _repeats(record: dict[str, Any], epoch: int) -> bool:
    """Whether a record is the end of an epoch that will be run to its end again."""
    number = record.get("epoch")
    return record["kind"] == "epoch" and not (isinstance(number, int) and number < epoch)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The objects of a log; invalid lines, such as a last line cut off by a kill, are skipped."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and type(record.get("step")) is int and isinstance(record.get("kind"), str):
                records.append(record)
    return records


def draw_curve(log: Path, image: Path, title: str, scores: Sequence[str]) -> None:
    """Draw the losses, rewards and dev ``scores`` of ``log`` over epochs as a PNG; needs matplotlib."""
    figures = require("matplotlib.figure", extra="plots")
    epochs = [r for r in read_log(log) if r["kind"] == "epoch"]
    if not epochs:
        return
    figure = figures.Figure(figsize=(7.0, 4.2), dpi=120, layout="constrained")
    left = figure.add_subplot()
    for key, label, style in (("train_loss", "training loss", "-"), ("dev_loss", "dev loss", "--")):
        points = [(r["epoch"], r[key]) for r in epochs if key in r]
        if points:
            left.plot(*zip(*points, strict=True), style, color="tab:blue", label=label)
    left.set(xlabel="epoch", ylabel="loss (nats)", title=title)
    right = left.twinx()
    for key, color in zip([REWARD, *scores], ["tab:red", *COLORS], strict=False):
        points = [(r["epoch"], r[key]) for r in epochs if key in r]
        percent = any(value > 10 for _, value in points)  # it would flatten the other curves
        label = "training reward" if key == REWARD else f"dev {key}{' / 100' if percent else ''}"
        if points:
            scaled = [(epoch, value * (0.01 if percent else 1.0)) for epoch, value in points]
            right.plot(*zip(*scaled, strict=True), "o-", markersize=3, color=color, label=label)
    right.set_ylabel("score")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    with atomic_path(image) as temporary:
        figure.savefig(temporary, format="png")


def display(wanted: bool, done: int, total: int) -> AbstractContextManager[Progress]:
    """A progress bar over the batches of a run if ``wanted``, else no output."""
    return progress_bar("training", total, done=done, hidden=not wanted)
