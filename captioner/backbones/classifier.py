"""Published networks with their class layer, which backbones omit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from captioner.backbones.spec import BackboneSpec
from captioner.errors import BackboneError
from captioner.registry import resolve

FAMILIES = {
    "efficientnet-lite": "captioner.backbones.efficientnet_lite:load_classifier",
    "torchvision": "captioner.backbones.torchvision:load_classifier",
    "transformers": "captioner.backbones.transformers:load_classifier",
}
"""For each first part of a name, up to its colon, the function (rest of the name) -> ``PublishedClassifier``."""


class PublishedClassifier(NamedTuple):
    """A network on the CPU, in evaluation mode."""

    spec: BackboneSpec
    """The preparation of images."""
    network: nn.Module
    """From prepared images (N, 3, S, S) to logits (N, K)."""
    classes: Sequence[str]
    """Names of the K classes."""


class Headed(nn.Module):
    """A network that returns features (N, D), followed by ``classifier``, a linear layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.classifier = network.get_submodule("classifier")

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.network(images))
        return logits


def load_published_classifier(name: str) -> PublishedClassifier:
    """Load ``efficientnet-lite:2``, ``torchvision:resnet50``, ``transformers:google/vit-base-patch16-224`` or the like.

    Raises ``BackboneError`` for a name of another kind and ``MissingWeights`` if there are no weights.
    """
    family, _, rest = name.partition(":")
    found: PublishedClassifier = resolve(FAMILIES, family, "family of classifiers", BackboneError)(rest)
    return found
