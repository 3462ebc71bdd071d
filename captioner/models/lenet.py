"""LeNet (LeCun et al. 1998) in the sizes that Caffe's MNIST tutorial made common."""

from __future__ import annotations

from torch import Tensor, nn

from captioner.errors import ConfigError
from captioner.models.image_config import ImageModelConfig

MAPS, UNITS = (20, 50), 500


class LeNet(nn.Module):
    """Images (N, C, S, S) to logits (N, K): two 5x5 convolutions with 2x2 pooling, 500 units, the classes."""

    def __init__(self, config: ImageModelConfig, channels: int, side: int, classes: int) -> None:
        super().__init__()
        left = ((side - 4) // 2 - 4) // 2
        if left < 1:
            raise ConfigError(f"data.crop: {side} pixels are too few for LeNet; at least 16")
        self.network = nn.Sequential(
            nn.Conv2d(channels, MAPS[0], 5),
            nn.MaxPool2d(2),
            nn.Conv2d(*MAPS, 5),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(MAPS[1] * left**2, UNITS),
            nn.ReLU(),
            nn.Linear(UNITS, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits
