"""CompactCNN: a small convolutional network to train on your own data; it ships without weights.

Plain torch, because importing torchvision takes as long as importing torch. The blocks are fused inverted bottlenecks
(Gupta & Tan 2019, MobileNetEdgeTPU; Tan & Le 2021, EfficientNetV2, figure 2): a dense 3x3 expansion followed by a 1x1
projection, which is faster on matrix units than depthwise convolutions.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from captioner.backbones.backbone import Backbone
from captioner.backbones.layers import reader
from captioner.backbones.spec import BackboneSpec
from captioner.backbones.weights import State, fit_weights, read_weights
from captioner.errors import BackboneError, MissingWeights
from captioner.skip_init import skip_init

STEM = 32
STAGES = (  # (channels, expansion, stride, blocks)
    (32, 2, 2, 2),
    (48, 4, 2, 3),
    (96, 4, 2, 4),
    (160, 3, 2, 3),
)
FEATURES = 1280
SPEC = BackboneSpec(
    key="compact",
    size=192,
    resize="squash",
    dimension=FEATURES,
)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalization and, unless ``act`` is false, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, act: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if act:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class FusedBlock(nn.Module):
    """Fused inverted bottleneck: 3x3 expansion, 1x1 projection, and a skip where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        middle = expansion * (inputs if stride > 1 and inputs * expansion >= outputs * 2 else outputs)
        self.expand = ConvNorm(inputs, middle, 3, stride)
        self.project = ConvNorm(middle, outputs, act=False)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.expand(x))
        return x + y if self.skip else y


class CompactCNN(nn.Module):
    """Normalized images (N, 3, H, W) to pooled features (N, 1280); H and W should be 96 to 256 pixels."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        width = STEM
        for channels, expansion, stride, count in STAGES:
            for index in range(count):
                blocks.append(FusedBlock(width, channels, expansion, stride if index == 0 else 1))
                width = channels
        self.stem = ConvNorm(3, STEM, 3, 2)
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(width, FEATURES)

    def feature_map(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to the last map (N, 1280, H/32, W/32), after its ReLU."""
        maps: Tensor = self.head(self.blocks(self.stem(images)))
        return maps

    def forward(self, images: Tensor) -> Tensor:
        return torch.flatten(self.feature_map(images).mean((2, 3)), 1)


def build(name: str, weights: Path | None, state: State | None) -> Backbone:
    """The network with the weights in ``weights`` or ``state``; raises ``MissingWeights`` without either."""
    if name:
        raise BackboneError(f"compact takes no name, got compact:{name}")
    with skip_init():
        network = CompactCNN()
    if state is None:
        if weights is None:
            raise MissingWeights("compact: it has no weights of its own; give a file with --weights")
        state = read_weights(weights)
    fit_weights(network, state, "compact")
    return Backbone(SPEC, network, reader(network, "", "compact"))
