"""Backbones in ONNX Runtime, which is faster than torch on CPUs for networks with batch norms."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from torch import Tensor, nn

from captioner.backbones.backbone import Backbone
from captioner.errors import GraphError
from captioner.graphs import ROWS, Graph, encode, open_graph, write_graph

WORTH_A_GRAPH = 500
"""Fewest images for which a graph is written, which takes about as long as 100 images."""


class Encoder(nn.Module):
    """Prepared images (N, 3, S, S) to features (N, D); the network's weights are ``backbone.INDEX.NAME``."""

    def __init__(self, backbone: Backbone, index: int = 0) -> None:
        super().__init__()
        self.read = backbone.read
        self.backbone = nn.ModuleDict({str(index): backbone.network})

    def forward(self, images: Tensor) -> Tensor:
        (network,) = self.backbone.values()
        return self.read(network, images).float()


class OnnxBackbone(Backbone):
    """A backbone whose network is a session of ONNX Runtime: the same features up to rounding."""

    def __init__(self, backbone: Backbone, graph: Graph) -> None:
        super().__init__(backbone.spec, _Session(graph), _run)
        self._digest = backbone.weights_digest

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the weights of the graph's network."""
        return self._digest


def fastest_backbone(backbone: Backbone, images: int, *, device: str | torch.device, precision: str) -> Backbone:
    """``backbone``, or the same in ONNX Runtime if that is faster for this number of ``images``.

    ONNX Runtime is faster on CPUs, in float32, for networks with batch norms, which it merges into the convolutions.
    A missing graph is written if there are at least ``WORTH_A_GRAPH`` images and the extra ``export`` is installed.
    """
    merges = any(isinstance(layer, nn.BatchNorm2d) for layer in backbone.network.modules())
    if torch.device(device).type != "cpu" or precision != "float32" or not merges:
        return backbone
    if backbone.read_graph is not None:
        return OnnxBackbone(backbone, backbone.read_graph())
    if images < WORTH_A_GRAPH or not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
        return backbone
    examples = torch.rand(ROWS, 3, backbone.spec.size, backbone.spec.size)
    try:
        model = write_graph(Encoder(backbone), (examples,), optimize=False)
    except GraphError:  # not every network can be written as a graph
        return backbone
    return OnnxBackbone(backbone, Graph(model.SerializeToString(), {}))


class _Session(nn.Module):
    """Images (N, 3, S, S) to features (N, D)."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._session = open_graph(graph)

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(encode(self._session, images.numpy().astype(np.float32, copy=False)))


def _run(network: nn.Module, images: Tensor) -> Tensor:
    features: Tensor = network(images)
    return features
