"""The default model's CNN as a backbone (docs/default-model.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone
from captioner.backbones.weights import State
from captioner.errors import BackboneError
from captioner.graphs import Graph
from captioner.model_file import read_graph, read_header, read_weights

DEFAULT = Path(__file__).parents[1] / "assets" / "default.safetensors"
PREFIX = "backbone.0."  # of the CNN's tensors in a checkpoint


def build(name: str, weights: Path | None, state: State | None) -> Backbone:
    """The network with the default model's weights, or with those in ``weights`` or ``state``."""
    if name:
        raise BackboneError(f"default takes no name, got default:{name}")
    header = read_header(DEFAULT)
    own = weights is None and state is None
    if own:
        arrays = read_weights(header)
        names = [name for name in arrays if name.startswith(PREFIX)]
        state = {name.removeprefix(PREFIX): torch.from_numpy(arrays[name]) for name in names}
    backbone = load_backbone(header.inputs[0].key, weights, state)
    if own and header.has_graphs:
        backbone.read_graph = _read_graph
    source = str(weights or "captioner/assets/default.safetensors")
    backbone.spec = replace(backbone.spec, key="default", weights=source, sha256=backbone.weights_digest)
    return backbone


def _read_graph() -> Graph:
    return read_graph(DEFAULT, read_weights(read_header(DEFAULT)), PREFIX.rstrip("."))
