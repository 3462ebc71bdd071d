"""Backbones: pretrained networks that turn an image into a feature vector, each described by a ``BackboneSpec``.

A new family is one file with ``build(name, weights, state)`` and one line in ``FAMILIES``.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from captioner.backbones.layers import Read
from captioner.backbones.spec import BackboneSpec, prepare
from captioner.backbones.weights import State, digest_weights
from captioner.errors import BackboneError, shorten

__all__ = ["FAMILIES", "Backbone", "BackboneSpec", "load_backbone"]

FAMILIES = {
    "compact": "captioner.backbones.compact:build",
    "local": "captioner.backbones.local:build",
    "torchvision": "captioner.backbones.torchvision:build",
    "transformers": "captioner.backbones.transformers:build",
}
"""Start of a key, up to its first colon, to the function (name, weights, state) -> Backbone that makes the network."""


class Backbone(nn.Module):
    """A network and its record; ``read`` takes the feature out of ``network``."""

    def __init__(self, spec: BackboneSpec, network: nn.Module, read: Read) -> None:
        super().__init__()
        self.network = network
        self.read = read
        self.spec = spec if spec.dimension else spec.with_dimension(self._probe(spec))

    def preprocess(self, image: Image.Image) -> Tensor:
        """An RGB image as the network wants it, (3, S, S) float32."""
        return prepare(image, self.spec)

    def forward(self, images: Tensor) -> Tensor:
        """Prepared images (N, 3, S, S) to features (N, D)."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise BackboneError(f"{self.spec.key}: expected images (N, 3, S, S), got {tuple(images.shape)}")
        features = self.read(self.network, images)  # (N, D)
        if features.shape[1] != self.spec.dimension:
            sizes = f"{self.spec.dimension} numbers, the network gives {features.shape[1]}"
            raise BackboneError(f"{self.spec.key}: the record says {sizes}")
        return features

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the weights as they are now; a fine-tuned network has another one."""
        return digest_weights(self.network)

    @torch.no_grad()
    def _probe(self, spec: BackboneSpec) -> int:
        """Length of the feature vector, from one black image."""
        was_training = self.network.training
        features = self.read(self.network.eval(), torch.zeros(1, 3, spec.size, spec.size))
        self.network.train(was_training)
        return features.shape[1]


def load_backbone(key: str, weights: Path | None = None, state: State | None = None) -> Backbone:
    """The backbone that ``key`` names, on the CPU, in evaluation mode.

    Keys: ``compact``, ``torchvision:vgg16@fc7``, ``transformers:openai/clip-vit-base-patch32``,
    ``local:path/to/record.yaml``. ``weights`` is a file to use instead of the usual one; ``state`` holds weights that
    are in memory already (``backbone.network.state_dict()``), so nothing is read or downloaded.
    Raises ``BackboneError`` for unknown keys and weights that do not fit, ``MissingWeights`` where there are none.
    """
    family, _, name = key.partition(":")
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, 1)
        hint = f"did you mean {near[0]}?" if near else f"a key starts with one of {', '.join(FAMILIES)}"
        raise BackboneError(f"unknown backbone {shorten(key)}; {hint}")
    module, _, function = FAMILIES[family].partition(":")
    backbone: Backbone = getattr(importlib.import_module(module), function)(name, weights, state)
    return backbone.eval()
