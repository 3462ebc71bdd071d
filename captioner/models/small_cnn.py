"""A small modern network for small images, in the spirit of airbench (Jordan 2024, arXiv 2404.00498).

A fixed 2x2 convolution whitens patches, pairs of 3x3 convolutions with batch normalization follow, and the class scores
are computed from the maximum of the last maps. The whitening, the shape, the identity initialization of the
convolutions and the scaled scores are airbench's; the optimizer is the project's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captioner.errors import ConfigError
from captioner.models.image_config import ImageModelConfig

SCALE = 1 / 9
"""Factor of the class scores."""
WHITENING_NOISE = 5e-4
"""Added to the variances of patches, so that components without variance stay small."""


class SmallCNN(nn.Module):
    """Normalized images (N, C, S, S) to logits (N, K)."""

    def __init__(self, config: ImageModelConfig, channels: int, side: int, classes: int) -> None:
        super().__init__()
        left = (side - 1) // 2 ** len(config.widths)
        if left < 1:
            raise ConfigError(f"data.crop: {side} pixels are too few for {len(config.widths)} halvings (model.widths)")
        self.whitening = nn.Conv2d(channels, 2 * 4 * channels, 2)
        self.whitening.weight.requires_grad_(False)
        groups: list[nn.Module] = []
        before = self.whitening.out_channels
        for width in config.widths:
            groups += [_conv(before, width), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.GELU()]
            groups += [_conv(width, width), nn.BatchNorm2d(width), nn.GELU()]
            before = width
        self.groups = nn.Sequential(*groups)
        self.classifier = nn.Linear(before, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.groups(nn.functional.gelu(self.whitening(images)))
        logits: Tensor = self.classifier(maps.amax((2, 3))) * SCALE
        return logits

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first convolution from normalized ``images`` (N, C, S, S), so that its maps are uncorrelated."""
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1)  # (N, C, S - 1, S - 1, 2, 2)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)  # (N', C * 4)
        variances, vectors = torch.linalg.eigh(torch.cov(patches.double().T))
        kernels = (vectors / (variances + WHITENING_NOISE).sqrt()).T.float().reshape(-1, images.shape[1], 2, 2)
        self.whitening.weight.copy_(torch.cat([kernels, -kernels]))
        assert self.whitening.bias is not None
        self.whitening.bias.zero_()


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that starts as the identity on as many maps as there are inputs."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[:inputs])
    return conv
