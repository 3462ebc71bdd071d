"""Backbones in ONNX Runtime, which is faster than torch on CPUs for networks with batch norms."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from torch import Tensor, nn

from captioner.backbones.backbone import Backbone
from captioner.errors import GraphError
from captioner.graphs import Graph, encode, open_graph, write_graph

WORTH_A_GRAPH = 500
"""Fewest images for which a graph is written, which takes about as long as 100 images."""


class Encoder(nn.Module):
    """Prepared images (N, 3, S, S) to features (N, D); the names of the network's weights start with ``prefix``."""

    def __init__(self, backbone: Backbone, prefix: str) -> None:
        super().__init__()
        self.read = backbone.read
        self._folder, _, self._name = prefix.rpartition(".")
        self.add_module(self._folder, nn.ModuleDict({self._name: backbone.network}))

    def forward(self, images: Tensor) -> Tensor:
        return self.read(self.get_submodule(f"{self._folder}.{self._name}"), images).float()


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
    graph = backbone.graph
    if graph is None:
        if images < WORTH_A_GRAPH or not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
            return backbone
        size = backbone.spec.size
        examples = torch.rand(2, 3, size, size)  # with one row torch would export a constant
        try:
            model = write_graph(Encoder(backbone, "backbone.0"), (examples,), optimize=False)
        except GraphError:  # not every network can be written as a graph
            return backbone
        graph = Graph(model.SerializeToString(), {})
    return OnnxBackbone(backbone, graph)


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
