"""Two convolutions, followed by fully connected layers or by a recurrent layer over rows.

The convolutions are those of TensorFlow's CIFAR-10 tutorial: 5x5, zero padding, pooling. The CNN-LSTM arranges their 64
maps of 6x6 as one image of 48x48, whose rows are the 48 steps of a recurrent layer.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.config import choose
from captioner.errors import ConfigError
from captioner.models.image_config import ImageModelConfig
from captioner.models.stack import CELLS

ORDER_SEED = 0
"""Seed of the order in which ``shuffle_rows`` reads rows, which is the same in every run."""


class LocalResponseNorm(nn.Module):
    """x / (1 + alpha * sum of x^2 over nine neighboring maps)^0.75 (Krizhevsky et al. 2012, section 3.3).

    Constants are those of TensorFlow's tutorial. The sum is a 1x1 convolution with a band of ones, more than twice as
    fast on a CPU as ``nn.LocalResponseNorm``, which pools over three dimensions (``benchmarks.run``).
    """

    RADIUS, ALPHA = 4, 0.001 / 9
    band: Tensor

    def __init__(self, maps: int) -> None:
        super().__init__()
        place = torch.arange(maps)
        band = ((place[:, None] - place).abs() <= self.RADIUS).float()
        self.register_buffer("band", band[:, :, None, None], persistent=False)  # (maps, maps, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round the sum, some thousandths, away
            x = x.float()
            root = torch.rsqrt(1 + self.ALPHA * functional.conv2d(x * x, self.band))
            return x * root * root.sqrt()


class Trunk(nn.Sequential):
    """Images (N, C, S, S) to maps (N, M, S/4, S/4): convolution, pooling, convolution, pooling."""

    def __init__(self, config: ImageModelConfig, channels: int) -> None:
        def norm() -> list[nn.Module]:
            return [LocalResponseNorm(config.maps)] if config.local_response_norm else []

        super().__init__(
            nn.Conv2d(channels, config.maps, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *norm(),
            nn.Conv2d(config.maps, config.maps, 5, padding=2),
            nn.ReLU(),
            *norm(),
            nn.MaxPool2d(2),
        )


class CNN(nn.Module):
    """Images (N, C, S, S) to the logits (N, K) of K classes, through fully connected layers."""

    def __init__(self, config: ImageModelConfig, channels: int, side: int, classes: int) -> None:
        super().__init__()
        _check_side(side)
        self.trunk = Trunk(config, channels)
        sizes = [config.maps * (side // 4) ** 2, *config.fully_connected]
        layers: list[nn.Module] = [nn.Flatten()]
        for size, following in itertools.pairwise(sizes):
            layers += [nn.Linear(size, following), nn.ReLU()]
        self.classifier = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.trunk(images))
        return logits


class RowReader(nn.Module):
    """Rows (N, T, D) to logits (N, K), by a recurrent layer over the rows and a linear layer on its last state."""

    order: Tensor

    def __init__(self, config: ImageModelConfig, steps: int, size: int, classes: int) -> None:
        super().__init__()
        choose("model.cell", config.cell, CELLS)
        self.recurrent = CELLS[config.cell].module(size, config.hidden_dim)
        self.classifier = nn.Linear(config.hidden_dim, classes)
        order = torch.arange(steps)
        if config.shuffle_rows:
            order = torch.randperm(steps, generator=torch.Generator().manual_seed(ORDER_SEED))
        self.register_buffer("order", order)

    def forward(self, rows: Tensor) -> Tensor:
        states, _ = self.recurrent(rows[:, self.order].transpose(0, 1))  # (T, N, H)
        logits: Tensor = self.classifier(states[-1])
        return logits


class Rows(nn.Module):
    """Images (N, C, S, S) to logits (N, K); each step reads a row of pixels, S times C numbers."""

    def __init__(self, config: ImageModelConfig, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.reader = RowReader(config, side, side * channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.reader(images.permute(0, 2, 3, 1).flatten(2))  # (N, S, S * C)
        return logits


class CNNLSTM(nn.Module):
    """Images (N, C, S, S) to logits (N, K); the maps of two convolutions form one image, which is read row by row."""

    def __init__(self, config: ImageModelConfig, channels: int, side: int, classes: int) -> None:
        super().__init__()
        _check_side(side)
        self.across = math.isqrt(config.maps)
        if self.across**2 != config.maps:
            raise ConfigError(f"model.maps: {config.maps} maps do not tile a square; use a square number such as 64")
        self.arrangement = config.arrangement
        self.trunk = Trunk(config, channels)
        edge = self.across * (side // 4)
        self.reader = RowReader(config, edge, edge, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.reader(arrange(self.trunk(images), self.across, self.arrangement))
        return logits


def arrange(maps: Tensor, across: int, arrangement: str) -> Tensor:
    """Maps (N, A * A, H, H) as images (N, A * H, A * H).

    ``mosaic``: map i * A + j is the tile in row i and column j, so a row of the image is one row of A maps.
    ``reshape``: the numbers in their order in memory, so a row of the image is A / H maps.
    """
    count, _, height, width = maps.shape
    if arrangement == "mosaic":
        maps = maps.reshape(count, across, across, height, width).permute(0, 1, 3, 2, 4)
    return maps.reshape(count, across * height, across * width)


def _check_side(side: int) -> None:
    if side % 4:
        raise ConfigError(f"data.crop: {side} pixels cannot be halved twice; use a multiple of 4")
