"""The record of a task, through which the trainer, checkpoints and configurations use it.

A new task is one module with a ``TASK`` and one line in ``TASKS``; the trainer, checkpoints and configurations need no
change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from captioner.config import Experiment, TrainConfig
from captioner.features.spec import FeatureSpec
from captioner.registry import resolve

TASKS = {
    "captioning": "captioner.tasks.captioning:TASK",
    "language_model": "captioner.tasks.language_model:TASK",
    "clip_captioning": "captioner.tasks.clip_captioning:TASK",
    "activity": "captioner.tasks.activity:TASK",
    "classification": "captioner.tasks.classification:TASK",
}


class Outputs(Protocol):
    """The meaning of the model's output dimensions: the words of a vocabulary, or the names of classes."""

    kind: ClassVar[str]
    """Key in ``captioner.model_file.OUTPUTS``."""

    def __len__(self) -> int: ...
    def to_list(self) -> list[str]: ...


class Batch(Protocol):
    """One process's training items in one step."""

    def __len__(self) -> int:
        """Number of items; in the last batch it may be 0 for some processes."""
        ...

    def to(self, device: torch.device) -> Batch: ...


class TrainingData(Protocol):
    """The interface of what ``Task.load_data`` returns; equal in every process."""

    inputs: Sequence[FeatureSpec]
    """Features that the model reads, concatenated in this order; empty if it reads none."""
    outputs: Outputs

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        ...

    def batches(self, epoch: int, skip: int = 0, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """The batches of an epoch (from 0) after the first ``skip``; process ``rank`` of ``size`` gets its share.

        A pure function of the run's seed and the arguments, so that a resumed run gets the same batches, and the shares
        of all processes together are the batch of one process.
        """
        ...


@dataclass(frozen=True)
class StepLoss:
    """The loss of one step in one process."""

    total: Tensor
    """Sum over the terms, a scalar with a gradient; the trainer divides it by the count over all processes."""
    count: float
    """Number of terms, such as tokens or images."""
    shown: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Quantities that are logged instead of the loss, as name: (sum, count), for example the mean reward."""


class Learner(nn.Module):
    """The trained modules of a run: the model that checkpoints store and, if it is fine-tuned, the backbone."""

    def __init__(self, model: nn.Module, backbone: nn.Module | None = None, backbone_lr: float = 0.0) -> None:
        """``backbone_lr`` is the peak learning rate of the backbone."""
        super().__init__()
        self.model = model
        self.backbone = backbone
        self.backbone_lr = backbone_lr

    def train(self, mode: bool = True) -> Learner:
        """Training mode, except for the backbone: small batches would distort the statistics of its batch norms."""
        super().train(mode)
        if self.backbone is not None:
            self.backbone.eval()
        return self

    def parameter_groups(self, config: TrainConfig) -> list[tuple[nn.Module, float]]:
        """Modules and the peak learning rate of each."""
        groups = [(self.model, config.lr)]
        return groups if self.backbone is None else [*groups, (self.backbone, self.backbone_lr)]


def make_plain_learner(experiment: Experiment, data: Any, model: nn.Module, device: torch.device) -> Learner:
    """The model alone, on ``device``."""
    return Learner(model).to(device)


def start_from_nothing(experiment: Experiment, data: Any, learner: Any) -> list[str]:
    """Keep the model's own initial weights."""
    return []


def accept(experiment: Experiment) -> None:
    """Accept all settings."""


@dataclass(frozen=True)
class Task:
    """One kind of problem: how its data are read, and its models are built, trained and evaluated."""

    name: str
    config: type
    """Dataclass of the task's sections in a configuration file."""
    metrics: Mapping[str, str]
    """Dev metrics that may select the checkpoint, each with ``max`` or ``min``; the first is the default."""
    load_data: Callable[[Experiment], Any]
    """Experiment -> ``TrainingData``."""
    build: Callable[[Any, Sequence[FeatureSpec], Any], nn.Module]
    """Config, input specs and outputs -> the model with its initial weights (uninitialized under ``skip_init``)."""
    loss: Callable[[Any, Any], StepLoss]
    """Learner and batch, on one device -> ``StepLoss``."""
    evaluate: Callable[[Any, Any, str], dict[str, float]]
    """Learner, data and precision (float32 or bfloat16) -> dev metrics; at least those of ``metrics``."""
    make_learner: Callable[[Experiment, Any, nn.Module, torch.device], Any] = make_plain_learner
    """Experiment, data, model, device -> ``Learner``."""
    start: Callable[[Experiment, Any, Any], list[str]] = start_from_nothing
    """Experiment, data, learner -> lines for the log. Sets the weights from which a new run starts."""
    check: Callable[[Experiment], None] = accept
    """Raises ``ConfigError`` for settings that exclude each other."""
    unit: str = "items"
    """What ``StepLoss.count`` counts, for the speed in the log."""


def find_task(name: str) -> Task:
    """The task called ``name``; raises ``ConfigError``, which lists the tasks, for any other name."""
    task: Task = resolve(TASKS, name, "task")
    return task
