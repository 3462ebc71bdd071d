"""Published scores, one YAML file per data set, with the reasons why they are not comparable with ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from captioner.errors import UsageError

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))
"""Data sets with published tables: the files beside this one."""
PERCENT = {"percent": 1.0, "fraction": 100.0}


@dataclass(frozen=True)
class Row:
    """One system of a table; ``values`` by metric, always in percent, None if the paper gives none."""

    system: str
    values: dict[str, float | None]
    cnn: str = ""
    input: str = ""
    """Input of a clip captioner."""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a paper, or the part of one that shares these settings."""

    task: str
    """captions, caption to image, image to caption, video description or activity recognition."""
    paper: str
    table: str
    """The table's number; empty if it was not checked."""
    source: str
    """Address of the paper."""
    split: str
    """The split, in the paper's words."""
    part: str
    """Our name of that split: train, val or test."""
    images: int | None
    """Number of images; None if it was not checked."""
    references: int | None
    """References per image; None if not applicable or unknown."""
    scorer: str
    """coco-caption, recall, accuracy, or unknown if the paper does not name its scorer."""
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def citation(self) -> str:
        return f"{self.paper}, {self.table}" if self.table else self.paper


@dataclass(frozen=True)
class Setting:
    """Settings of our own scores."""

    split: str
    """train, val or test."""
    images: int
    tokenizer: str
    references: str
    """References per image as in a signature: ``5``, or ``5-7``."""
    backbones: str
    """Keys of the backbones whose features were used."""


@cache
def read_tables(name: str, task: str = "captions") -> tuple[Table, ...]:
    """The tables on ``task`` of the data set ``name``, one of ``NAMES``; raises ``UsageError`` for another."""
    if name not in NAMES:
        raise UsageError(f"no published tables of {name!r}; there are: {', '.join(NAMES)}")
    entries = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["tables"]
    return tuple(_table(dict(entry)) for entry in entries if entry["task"] == task)


def differences(table: Table, row: Row, ours: Setting) -> list[str]:
    """Reasons why ``row`` is not comparable with our scores; empty if no known setting differs."""
    reasons = []
    if table.scorer == "unknown":
        reasons.append("scorer and tokenizer not stated")
    elif table.scorer == "coco-caption" and ours.tokenizer not in ("ptb-lite", "ptb-java"):
        reasons.append(f"tokenizer: coco-caption's there, {ours.tokenizer} here")
    if table.part != ours.split or table.images != ours.images:
        here = f"{ours.split}, {ours.images:,} images"
        reasons.append(f"split: {table.split}{'' if table.images else ' (number not stated)'} there, {here} here")
    if table.references is not None and str(table.references) not in ours.references.split("-"):
        reasons.append(f"references: {table.references} there, {ours.references} here")
    if row.cnn and row.cnn.lower() not in ours.backbones.lower():
        reasons.append(f"CNN: {row.cnn} there, {ours.backbones or 'unknown'} here")
    return reasons


def _table(entry: dict[str, Any]) -> Table:
    unit, metrics = PERCENT[entry.pop("unit")], entry.pop("metrics")
    rows = []
    for row in entry.pop("rows"):
        values = dict(zip(metrics, row.pop("values"), strict=True))
        rows.append(Row(values={k: None if v is None else round(v * unit, 6) for k, v in values.items()}, **row))
    return Table(rows=tuple(rows), **entry)
