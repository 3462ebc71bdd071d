"""A task of its own, to show that trainer, checkpoints and configurations need to know nothing about it.

Points (N, 2) belong to one of two classes by the sign of their first coordinate; a linear layer learns that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.config import Experiment
from captioner.data.records import ClassNames
from captioner.features.spec import FeatureSpec
from captioner.tasks.base import Learner, StepLoss, Task


@dataclass(frozen=True)
class ToyConfig:
    points: int = 64


@dataclass(frozen=True)
class Points:
    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Points:
        return Points(self.x.to(device), self.y.to(device))


@dataclass
class ToyData:
    points: Points
    batch_size: int
    inputs: Sequence[FeatureSpec] = (FeatureSpec("points", 2),)
    outputs: ClassNames = field(default_factory=lambda: ClassNames(("left", "right")))

    def __len__(self) -> int:
        return -(-len(self.points) // self.batch_size)

    def batches(self, epoch: int, skip: int = 0, rank: int = 0, size: int = 1) -> Iterator[Points]:
        order = torch.randperm(len(self.points), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(self.batch_size)[skip:]:
            yield Points(self.points.x[rows[rank::size]], self.points.y[rows[rank::size]])


def load_data(experiment: Experiment) -> ToyData:
    x = torch.randn(experiment.config.points, 2, generator=torch.Generator().manual_seed(0))
    return ToyData(Points(x, (x[:, 0] > 0).long()), experiment.train.batch_size)


def loss(learner: Learner, batch: Points) -> StepLoss:
    return StepLoss(functional.cross_entropy(learner.model(batch.x), batch.y, reduction="sum"), len(batch))


@torch.inference_mode()
def evaluate(learner: Learner, data: ToyData, precision: str) -> dict[str, float]:
    right = learner.eval().model(data.points.x).argmax(1) == data.points.y
    return {"accuracy": float(right.float().mean())}


TASK = Task(
    "toy", ToyConfig, {"accuracy": "max"}, load_data, lambda *parts: nn.Linear(2, len(parts[2])), loss, evaluate
)
