"""A backbone: a network, its specification, and the way the feature is read from it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn

from captioner.backbones.layers import Read
from captioner.backbones.spec import BackboneSpec, prepare
from captioner.backbones.weights import digest_weights
from captioner.errors import BackboneError
from captioner.graphs import Graph

IMAGES_AT_ONCE = {"cpu": 4}
"""Images in one pass on a CPU, which is up to twice as fast if a layer's output fits into its cache."""
MOST_AT_ONCE = 128
"""The same on other devices, where larger batches are faster but layers need most of the memory."""


class Backbone(nn.Module):
    """A network and its specification; ``read`` computes the feature with ``network``."""

    read_graph: Callable[[], Graph] | None = None
    """Reads the same as an ONNX graph, if one comes with the weights."""

    def __init__(self, spec: BackboneSpec, network: nn.Module, read: Read) -> None:
        super().__init__()
        self.network = network
        self.read = read
        self.spec = spec if spec.dimension else spec.with_dimension(self._probe(spec))

    def preprocess(self, image: Image.Image) -> Tensor:
        """An RGB image prepared for the network, (3, S, S) float32."""
        return torch.from_numpy(prepare(image, self.spec))

    def forward(self, images: Tensor) -> Tensor:
        """From prepared images (N, 3, S, S), their features (N, D)."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise BackboneError(f"{self.spec.key}: expected images (N, 3, S, S), got {tuple(images.shape)}")
        features = self.read(self.network, images)  # (N, D)
        if features.shape[1] != self.spec.dimension:
            sizes = f"{self.spec.dimension} numbers, the network gives {features.shape[1]}"
            raise BackboneError(f"{self.spec.key}: the record says {sizes}")
        return features

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the current weights; fine-tuning changes it."""
        return digest_weights(self.network)

    @torch.no_grad()
    def _probe(self, spec: BackboneSpec) -> int:
        """Length of the feature vector, found with one black image."""
        was_training = self.network.training
        features = self.read(self.network.eval(), torch.zeros(1, 3, spec.size, spec.size))
        self.network.train(was_training)
        return features.shape[1]


def split(images: Tensor, device: str | torch.device) -> tuple[Tensor, ...]:
    """Images (N, ...) in the parts that go through a backbone on ``device`` one after another."""
    return torch.split(images, IMAGES_AT_ONCE.get(torch.device(device).type, MOST_AT_ONCE))
