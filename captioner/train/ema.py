"""Exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of a network's parameters (Polyak & Juditsky 1992); decay 0 disables it."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = [p.data for p in network.parameters() if p.requires_grad]
        self.values = [p.clone() for p in self.live] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after ``step`` (from 1); the decay is lower in early steps, so the initial weights fade."""
        if self.decay:
            decay = min(self.decay, step / (step + 9))
            torch._foreach_lerp_(self.values, self.live, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the average inside the ``with`` block, and its own weights again after it."""
        if not self.decay:
            yield
            return
        own = [p.clone() for p in self.live]
        torch._foreach_copy_(self.live, self.values)
        try:
            yield
        finally:
            torch._foreach_copy_(self.live, own)
