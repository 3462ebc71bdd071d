"""Experiment configurations: frozen dataclasses filled from YAML and ``--set key=value``.

Unknown keys are errors that name the nearest key; a value out of range names the field, the value and the choices.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from captioner.errors import ConfigError

T = TypeVar("T")


def choose(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ``ConfigError`` unless ``value`` is one of ``choices``."""
    options = list(choices)
    if value not in options:
        raise ConfigError(f"{name}: {value!r} is not one of {', '.join(map(str, options))}")


def within(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise ``ConfigError`` unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value} is outside {low} to {high}")


@dataclass(frozen=True)
class ModelConfig:
    """The decoder: which layers see what, and how large they are."""

    wiring: str = "4f"
    """1u, 2u, 2f or 4f: a line of captioner.models.wirings, where building the model looks it up."""
    encoder: bool = False
    """Encoder-decoder: read the words of the labels of a one-hot feature (label predictions, FILE@map) and start from
    the last state, instead of feeding the feature; for wiring 2e."""
    cell: str = "lstm"
    """Recurrent cell of every layer: lstm, gru or rnn, from captioner.models.stack, in the same way."""
    embedding: int = 512
    """Size of a word vector."""
    hidden: int = 512
    """Units in each recurrent layer."""
    image: int = 512
    """Size of the learned projection of the image feature; 0 feeds the feature itself, as the paper does."""
    dropout: float = 0.0
    """Probability of dropping a unit of the word vectors, between layers and before the softmax; paper: 0."""
    image_dropout: float = 0.0
    """Probability of dropping a unit of the image feature before its projection; paper: 0."""
    residual: bool = False
    """Add a layer's input to its output wherever it sees only the layer below (layers 3 and 4 of 4f, 2 of 2u)."""
    tied: bool = False
    """Share the word vectors with the softmax, through a projection of the top layer; paper: no."""
    normalize: str = "dimension"
    """What is done to features first, by statistics of the training set that the checkpoint keeps. none: nothing (the
    paper); dimension: each dimension to mean 0 and deviation 1; backbone: each dimension to mean 0 and all of one
    backbone to a common deviation of 1; root: the signed square root of each number, then as backbone."""
    init: str = "orthogonal"
    """orthogonal (recurrent weights, forget bias 1) or uniform (-0.08 to 0.08, biases 0: the paper)."""

    def __post_init__(self) -> None:
        choose("model.init", self.init, ("orthogonal", "uniform"))
        if self.encoder and self.normalize != "none":
            raise ConfigError("model.encoder reads labels, not numbers: model.normalize must be none")
        choose("model.normalize", self.normalize, ("none", "dimension", "backbone", "root"))
        within("model.embedding", self.embedding, 1)
        within("model.hidden", self.hidden, 1)
        within("model.image", self.image, 0)
        within("model.dropout", self.dropout, 0, 0.95)
        within("model.image_dropout", self.image_dropout, 0, 0.95)


@dataclass(frozen=True)
class DataConfig:
    """The captions, the images' features and the vocabulary."""

    format: str = "flickr8k"
    """Reader: one of captioner.data.READERS."""
    root: str = "."
    """Folder (or file, for own data) that the reader opens."""
    features: tuple[str, ...] = ()
    """Feature stores; several are concatenated in this order. A folder is a store in parts."""
    features_mirrored: tuple[str, ...] = ()
    """The same stores made with captioner extract --mirror; training draws one or the other for each caption."""
    text: str = ""
    """For text-only pre-training: a file with one sentence a line; then no features are needed."""
    vocabulary_from: str = ""
    """Checkpoint whose vocabulary is taken over instead of counting words; min_count is then unused."""
    min_count: int = 5
    """Words seen fewer times in training become <unk>."""
    max_length: int = 20
    """Longest caption in tokens, the end token included; the rest is cut off."""

    def __post_init__(self) -> None:
        within("data.min_count", self.min_count, 1)
        within("data.max_length", self.max_length, 2)


@dataclass(frozen=True)
class TrainConfig:
    """The optimization."""

    objective: str = "cross_entropy"
    """cross_entropy, or self_critical: the CIDEr-D of captions drawn from the model, which init_from has trained."""
    samples: int = 5
    """Captions drawn for each image; self_critical only."""
    epochs: int = 15
    """Passes over all training captions; with self_critical over all training images."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, as torch names them."""
    batch_size: int = 128
    """Captions in a step, over all processes together; with self_critical those of batch_size / samples images."""
    optimizer: str = "adamw"
    """adamw or sgd (momentum 0.9: the paper)."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: str = "cosine"
    """cosine (2 % warm-up, then to zero), constant, or halve (by two every ``halve_every`` steps: the paper)."""
    halve_every: int = 20000
    """Steps between halvings of the paper's schedule."""
    weight_decay: float = 0.01
    """AdamW's decay of matrices; biases are never decayed."""
    clip: float = 5.0
    """Largest norm of the whole gradient; 0 is no clipping."""
    loss_scale: float = 1.0
    """Factor on the loss (the paper's loss weight is 20)."""
    label_smoothing: float = 0.0
    """Probability mass spread over the vocabulary; unused by self_critical."""
    teachers: tuple[str, ...] = ()
    """Checkpoints whose mean expectation of the next word is learned too: an ensemble distilled into one model."""
    teacher_features: tuple[str, ...] = ()
    """Feature stores that the teachers read, where they see the images through other networks than the run."""
    teacher_features_mirrored: tuple[str, ...] = ()
    """The same of mirrored images; needed with data.features_mirrored."""
    teacher_weight: float = 0.5
    """Share of the teachers' expectations in the loss; people's words have the rest. Unused without teachers."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is what is evaluated and kept; 0 is none."""
    precision: str = "auto"
    """float32, bfloat16 (autocast), or auto: bfloat16 where the device can train LSTMs in it, else float32."""
    patience: int = 0
    """Stop after this many epochs without a better dev score; 0 never stops early."""
    metric: str = "cider"
    """Dev score that chooses the checkpoint: bleu4 or cider. Text-only runs choose by the dev loss."""
    evaluate_every: int = 1
    """Epochs between two evaluations on dev; the last epoch is always evaluated."""
    dev_beam: int = 0
    """Beam width of the dev captions: 1 is greedy and quick, 0 the width of the decode section."""
    log_every: int = 50
    """Optimizer steps between two lines of the log."""
    save_minutes: float = 10.0
    """Longest time between two saved states (to the next line of the log); one is saved after every epoch anyway."""
    seed: int = 0
    """Seed of initialization, order and dropout."""
    init_from: str = ""
    """Checkpoint whose equal-named weights start the run (for example a text-only pre-training)."""
    finetune: bool = False
    """Train the CNN end to end from images instead of reading cached features."""
    finetune_lr: float = 1e-4
    """Peak learning rate of the CNN when fine-tuning."""
    backbone: str = ""
    """Backbone key when fine-tuning."""
    weights: str = ""
    """Weight file for that backbone; without one its own are taken, from init_from if it was trained there."""
    mirror: bool = True
    """Mirror half of the images at random when fine-tuning."""
    workers: int = 2
    """Processes that open images when fine-tuning."""

    def __post_init__(self) -> None:
        if self.finetune and not self.backbone:
            raise ConfigError("train.finetune needs train.backbone, for example torchvision:vgg16@fc7")
        choose("train.objective", self.objective, ("cross_entropy", "self_critical"))
        choose("train.optimizer", self.optimizer, ("adamw", "sgd"))
        choose("train.schedule", self.schedule, ("cosine", "constant", "halve"))
        choose("train.precision", self.precision, ("auto", "float32", "bfloat16"))
        choose("train.metric", self.metric, ("bleu4", "cider"))
        within("train.epochs", self.epochs, 1)
        within("train.batch_size", self.batch_size, 1)
        within("train.samples", self.samples, 2)
        within("train.lr", self.lr, 0)
        within("train.finetune_lr", self.finetune_lr, 0)
        within("train.weight_decay", self.weight_decay, 0)
        within("train.clip", self.clip, 0)
        within("train.halve_every", self.halve_every, 1)
        within("train.patience", self.patience, 0)
        within("train.seed", self.seed, 0)
        within("train.evaluate_every", self.evaluate_every, 1)
        within("train.dev_beam", self.dev_beam, 0)
        within("train.log_every", self.log_every, 1)
        within("train.save_minutes", self.save_minutes, 0)
        within("train.workers", self.workers, 0)
        within("train.label_smoothing", self.label_smoothing, 0, 0.9)
        within("train.ema", self.ema, 0, 0.99999)
        within("train.teacher_weight", self.teacher_weight, 0, 1)
        if self.teachers and (self.finetune or self.objective == "self_critical"):
            raise ConfigError("train.teachers teach with cross_entropy and cached features: no finetune, self_critical")
        if not self.teachers and (self.teacher_features or self.teacher_features_mirrored):
            raise ConfigError("train.teacher_features are read by train.teachers alone: name their checkpoints there")
        if self.objective == "self_critical":
            self._check_self_critical()

    def _check_self_critical(self) -> None:
        if not self.init_from:
            raise ConfigError("train.objective self_critical starts from a trained model: name it in train.init_from")
        if self.finetune:
            raise ConfigError("train.objective self_critical reads cached features: train.finetune must be false")
        if self.batch_size % self.samples:
            raise ConfigError(f"train.batch_size: {self.batch_size} is no multiple of train.samples, {self.samples}")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Fill the dataclass ``cls`` from ``values``; ``where`` starts the error messages."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]  # T is always a dataclass here
    filled: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(names)}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")
        filled[key] = _convert(hints[key], value, f"{where}: {key}")
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


def _convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type, or ``ConfigError``; YAML's 1e-3 (a string) becomes a float."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a section with keys, got {value!r}")
        return from_mapping(hint, value, where)
    if typing.get_origin(hint) is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, Sequence):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(_convert(typing.get_args(hint)[0], item, where) for item in items)
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in typing.get_args(hint) if a is not types.NoneType), value, where)
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{where}: expected a number, got {value!r}") from None
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
