"""Configurations: frozen dataclasses filled from plain mappings, and the settings that all training runs share.

An unknown key is an error that names the nearest key; a value out of range is one that names field, value and choices.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from captioner.errors import ConfigError, shorten

T = TypeVar("T")
BOOLEANS = {**dict.fromkeys(("true", "yes", "on"), True), **dict.fromkeys(("false", "no", "off"), False)}
"""Booleans by their YAML spelling."""


def choose(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ``ConfigError`` unless ``value`` is one of ``choices``."""
    options = list(choices)
    if value not in options:
        raise ConfigError(f"{name}: {shorten(value)} is not one of {', '.join(map(str, options))}")


def within(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise ``ConfigError`` unless ``value`` is finite and ``low <= value <= high``."""
    if not low <= value <= high or not math.isfinite(value):
        raise ConfigError(f"{name}: {value} is outside {low} to {high}")


@dataclass(frozen=True)
class TrainConfig:
    """Optimization settings that all tasks share."""

    epochs: int = 15
    """Passes over the training data."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:1, as in torch."""
    batch_size: int = 128
    """Items in a step, in total over all processes."""
    optimizer: str = "adamw"
    """adamw or sgd (momentum 0.9: the paper)."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: str = "cosine"
    """cosine (2 % warm-up, then to zero), constant, or halve (by two every ``halve_every`` steps: the paper)."""
    halve_every: int = 20000
    """Steps between halvings of the paper's schedule."""
    weight_decay: float = 0.01
    """AdamW's weight decay of matrices; biases are never decayed."""
    clip: float = 5.0
    """Largest norm of the gradient over all weights; 0: no clipping."""
    loss_scale: float = 1.0
    """Factor of the loss (the paper's loss weight is 20)."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is evaluated and saved in their place; 0: none."""
    precision: str = "auto"
    """float32, bfloat16 (autocast), or auto: bfloat16 if the device can train LSTMs in it, else float32."""
    patience: int = 0
    """Stop after this many epochs without a better dev score; 0 never stops early."""
    metric: str = ""
    """Dev metric, one of the task's, that selects the checkpoint; empty: the task's first."""
    evaluate_every: int = 1
    """Epochs between two evaluations on dev; the last epoch is always evaluated."""
    log_every: int = 50
    """Optimizer steps between two lines of the log."""
    save_minutes: float = 10.0
    """Most minutes between two saved states within an epoch; the state is also saved after every epoch."""
    seed: int = 0
    """Seed of initialization, order and dropout."""
    init_from: str = ""
    """Checkpoint whose weights start the run, matched by name and shape (for example a text-only pre-training)."""

    def __post_init__(self) -> None:
        choose("train.optimizer", self.optimizer, ("adamw", "sgd"))
        choose("train.schedule", self.schedule, ("cosine", "constant", "halve"))
        choose("train.precision", self.precision, ("auto", "float32", "bfloat16"))
        within("train.epochs", self.epochs, 1)
        within("train.batch_size", self.batch_size, 1, 2**16)
        within("train.lr", self.lr, 0)
        within("train.weight_decay", self.weight_decay, 0)
        within("train.clip", self.clip, 0)
        within("train.halve_every", self.halve_every, 1)
        within("train.patience", self.patience, 0)
        within("train.seed", self.seed, 0, 2**63 - 1)
        within("train.loss_scale", self.loss_scale, 0)
        within("train.evaluate_every", self.evaluate_every, 1)
        within("train.log_every", self.log_every, 1)
        within("train.save_minutes", self.save_minutes, 0)
        within("train.ema", self.ema, 0, 0.99999)


@dataclass(frozen=True)
class CrossEntropyConfig:
    """The loss section of tasks that minimize a cross-entropy, of the next word or of the class."""

    label_smoothing: float = 0.0
    """Probability mass spread over the words or classes."""

    def __post_init__(self) -> None:
        within("loss.label_smoothing", self.label_smoothing, 0, 0.9)


@dataclass(frozen=True)
class Experiment:
    """One training run: the settings shared by all tasks, and the sections of one task."""

    task: str
    """Name of the task, one of captioner.tasks.base.TASKS."""
    config: Any
    """The task's own sections, an instance of its config dataclass."""
    train: TrainConfig = field(default_factory=TrainConfig)
    name: str = "run"
    """Title in the log and of the curve."""
    output: str = "runs/run"
    """Folder for checkpoints, log and curve."""

    def to_mapping(self) -> dict[str, Any]:
        """The plain dictionary that a YAML file of this experiment would hold."""
        common = {"task": self.task, "name": self.name, "output": self.output}
        return {**common, **to_mapping(self.config), "train": to_mapping(self.train)}


def check_keys(values: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Raise ``ConfigError``, which names the nearest valid key, for a key of ``values`` that is not in ``names``."""
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(names)}"
            raise ConfigError(f"{where}: unknown key {shorten(key)}{hint}")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Fill the dataclass ``cls`` from ``values``; ``where`` starts the error messages."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]  # T is always a dataclass here
    check_keys(values, names, where)
    filled = {key: convert(hints[key], value, f"{where}: {key}") for key, value in values.items()}
    try:
        return cls(**filled)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain dictionary of a configuration: lists for tuples, ready for JSON or YAML."""
    plain: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            value = to_mapping(value)
        plain[item.name] = list(value) if isinstance(value, tuple) else value
    return plain


def convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type, or ``ConfigError``.

    Strings from ``captioner.plain_yaml`` are converted to numbers and booleans if the annotation asks for these.
    """
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a section with keys, got {shorten(value)}")
        return from_mapping(hint, value, where)
    if typing.get_origin(hint) is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, Sequence):
            raise ConfigError(f"{where}: expected a list, got {shorten(value)}")
        return tuple(convert(typing.get_args(hint)[0], item, where) for item in items)
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        return convert(next(a for a in typing.get_args(hint) if a is not types.NoneType), value, where)
    return _scalar(hint, value, where)


def _scalar(hint: type, value: Any, where: str) -> Any:
    """``value`` as a text, a boolean or a finite number of at most 64 bits; ``ConfigError`` for anything else."""
    plain = type(value) in (str, int, float)
    with suppress(ValueError, OverflowError):
        if hint is str and plain:
            return str(value)
        if hint is bool and str(value).lower() in BOOLEANS and isinstance(value, str | bool):
            return BOOLEANS[str(value).lower()]
        if hint is int and plain and not isinstance(value, float) and abs(number := int(value)) < 2**63:
            return number
        if hint is float and plain and math.isfinite(real := float(value)):
            return real
    kind = "a finite number" if hint is float else hint.__name__
    raise ConfigError(f"{where}: expected {kind}, got {shorten(value)}")
