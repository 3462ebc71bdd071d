"""A backbone without weights, and stores of random features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from captioner.backbones.backbone import Backbone
from captioner.backbones.layers import reader
from captioner.backbones.spec import BackboneSpec
from captioner.features.writer import FeatureWriter

SPEC = BackboneSpec("tiny", size=8, resize="squash", dimension=12)


def tiny_backbone(**fields: Any) -> Backbone:
    """Averages of 4 x 4 pixels: 12 numbers that depend on the image, and no weights."""
    network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    return Backbone(replace(SPEC, **fields), network, reader(network, "", "tiny")).eval()


def vector(number: int) -> np.ndarray:
    """A random feature (12,) float32 that depends on ``number`` alone."""
    return np.random.default_rng(number).normal(size=12).astype(np.float32)


def fill(path: Path, numbers: range, **options: Any) -> None:
    """Write ``vector(n)`` under the id ``n.jpg`` for each number."""
    with FeatureWriter(path, options.pop("spec", SPEC), options.pop("digest", "w"), **options) as writer:
        for number in numbers:
            writer.add(f"{number}.jpg", vector(number))
