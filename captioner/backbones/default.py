"""The default model's CNN as a backbone (docs/default-model.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone
from captioner.backbones.weights import State
from captioner.errors import BackboneError
from captioner.model_file import read_graph, read_header, read_weights

DEFAULT = Path(__file__).parents[1] / "assets" / "default.safetensors"
PREFIX = "backbone.0."  # of the CNN's tensors in a checkpoint


def build(name: str, weights: Path | None, state: State | None) -> Backbone:
    """The network with the default model's weights, or with those in ``weights`` or ``state``."""
    if name:
        raise BackboneError(f"default takes no name, got default:{name}")
    header = read_header(DEFAULT)
    graph = None
    if weights is None and state is None:
        arrays = read_weights(header)
        graph = read_graph(DEFAULT, arrays, PREFIX.rstrip(".")) if header.has_graphs else None
        names = [name for name in arrays if name.startswith(PREFIX)]
        state = {name.removeprefix(PREFIX): torch.from_numpy(arrays[name]) for name in names}
    backbone = load_backbone(header.inputs[0].key, weights, state)
    backbone.graph = graph
    source = str(weights or "captioner/assets/default.safetensors")
    backbone.spec = replace(backbone.spec, key="default", weights=source, sha256=backbone.weights_digest)
    return backbone
