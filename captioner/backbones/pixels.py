"""Pixels as a feature: ``pixels:64`` is an image of 64x64, for models that are trained from pixels."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from captioner.backbones.backbone import Backbone
from captioner.backbones.layers import reader
from captioner.backbones.spec import BackboneSpec
from captioner.backbones.weights import State
from captioner.errors import BackboneError

LARGEST = 256
"""Largest side in pixels; larger images have too many numbers for a feature."""


def build(name: str, weights: Path | None, state: State | None) -> Backbone:
    """The "network" that returns its input: 3 * S * S values from 0 to 255, for images of side S = ``name``."""
    if not name.isascii() or not name.isdecimal() or not 8 <= int(name) <= LARGEST:
        raise BackboneError(f"pixels:{name}: give the side of the image in pixels, 8 to {LARGEST}, as in pixels:64")
    if weights is not None:
        raise BackboneError(f"pixels:{name} has no weights; leave out --weights")
    side = int(name)
    spec = BackboneSpec(
        key=f"pixels:{name}",
        size=side,
        resize="squash",
        mean=(0.0, 0.0, 0.0),
        std=(1 / 255,) * 3,
        dimension=3 * side * side,
    )
    network = nn.Flatten()  # (N, 3, S, S) -> (N, 3 * S * S)
    return Backbone(spec, network, reader(network, "", spec.key))
