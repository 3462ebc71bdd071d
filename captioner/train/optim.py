"""Learning-rate schedules, and the optimizers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from captioner.config import TrainConfig

WARM_UP = 0.02  # share of the steps in which the cosine schedule warms up to its peak
MOMENTUM = 0.9  # as in LRCN's released solver


def rate_factor(config: TrainConfig, step: int, total: int) -> float:
    """Factor in 0..1 by which the peak learning rate is multiplied at ``step`` (from 0) of ``total`` steps."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "halve":
        return 0.5 ** (step // config.halve_every)
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def make_optimizer(config: TrainConfig, modules: Sequence[tuple[nn.Module, float]]) -> torch.optim.Optimizer:
    """AdamW or SGD over ``modules``, each with its own peak learning rate.

    Each parameter group carries ``peak``, the rate that ``set_rate`` scales.
    """
    groups = [group for module, peak in modules for group in _groups(module, peak, config.weight_decay)]
    if config.optimizer == "sgd":
        for group in groups:
            group["weight_decay"] = 0.0
        return torch.optim.SGD(groups, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its peak times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def _groups(module: nn.Module, peak: float, decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: weight decay applies to matrices and kernels, but not to biases and scales (1-d)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    pairs = ((matrices, decay), (vectors, 0.0))
    return [{"params": ps, "lr": peak, "peak": peak, "weight_decay": d} for ps, d in pairs if ps]
