"""The specification of a backbone, and the preparation of images for it, shared by captioning and extraction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from array_api_compat import device
from PIL import Image

from captioner.arrays import namespace
from captioner.errors import BackboneError, FeatureStoreError, shorten
from captioner.features.spec import FeatureSpec, digest

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
RESIZES = ("squash", "crop")
LARGEST_SIDE = 8192
"""Largest side in pixels in a record."""
CLASSIC_MARGIN = 256 / 224
"""Ten crops are cut from images larger than the input by this factor (Krizhevsky et al. 2012, section 4.1)."""
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(FeatureSpec):
    """A network that computes a feature: its preprocessing, its output and its license."""

    kind: ClassVar[str] = "backbone"

    size: int
    """Side of the square input in pixels."""
    resize: str = "crop"
    """crop: scale the shorter side to ``shorter``, cut the middle; squash: scale both sides to ``size``."""
    shorter: int = 0
    """Shorter side in pixels before a crop; 0: ``size``."""
    filter: str = "bilinear"
    """Interpolation, always with antialiasing: bilinear or bicubic."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each channel, whose values are in 0..1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divides each channel after the subtraction."""
    output: str = ""
    """Layer whose values are the feature."""
    weights: str = ""
    """Source of the weights: url, path, or model name."""
    sha256: str = ""
    """SHA-256 of the weight file or, as in torchvision's file names, its first digits; empty if unknown."""
    license: str = ""
    """Terms of code and weights, as far as known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mean", _three("mean", self.mean))
        object.__setattr__(self, "std", _three("std", self.std))
        if self.resize not in RESIZES:
            raise BackboneError(f"{self.key}: resize: {shorten(self.resize)} is not one of {', '.join(RESIZES)}")
        if self.filter not in FILTERS:
            raise BackboneError(f"{self.key}: filter: {shorten(self.filter)} is not one of {', '.join(FILTERS)}")
        if self.size < 1 or (self.shorter and self.shorter < self.size):
            raise BackboneError(f"{self.key}: size {self.size} must be at least 1 and at most shorter ({self.shorter})")
        if max(self.size, self.shorter) > LARGEST_SIDE:
            raise BackboneError(f"{self.key}: size and shorter must be at most {LARGEST_SIDE} pixels")
        if min(self.std) <= 0:
            raise BackboneError(f"{self.key}: std {self.std} must be above 0")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that depend on the preprocessing of images and on the layer."""
        values = [self.size, self.resize, self.shorter or self.size, self.filter, self.mean, self.std, self.output]
        return digest(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BackboneSpec:
        """The inverse of ``to_dict``; raises ``BackboneError`` for unknown or missing fields."""
        try:
            spec = super().from_dict(values)
        except FeatureStoreError as error:
            raise BackboneError(str(error)) from None
        assert isinstance(spec, BackboneSpec)
        return spec

    def with_dimension(self, dimension: int) -> BackboneSpec:
        return replace(self, dimension=dimension)


def pixels(image: Image.Image, spec: BackboneSpec) -> np.ndarray:
    """An RGB image scaled and cut for the backbone, (S, S, 3) uint8."""
    if spec.resize == "squash":
        return _resample(image, (0.0, 0.0, float(image.width), float(image.height)), spec)
    return _resample(image, _window(image.size, spec.size, spec.shorter or spec.size, 0.5, 0.5), spec)


def ten_crops(image: Image.Image, spec: BackboneSpec) -> np.ndarray:
    """Four corners and the center, and their mirror images: (10, S, S, 3) uint8 (Krizhevsky et al. 2012, section 4.1).

    They are cut from the whole image, whose shorter side is scaled to 256/224 of the input (or to the backbone's own
    ``shorter``, if that is larger); for a squashing backbone both sides are scaled.
    """
    margin = max(spec.shorter, round(spec.size * CLASSIC_MARGIN))
    crops = []
    for across, down in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5)):
        if spec.resize == "squash":
            box = _cut(image.size, (margin, margin), spec.size, across, down)
        else:
            box = _window(image.size, spec.size, margin, across, down)
        crops.append(_resample(image, box, spec))
    plain = np.stack(crops)
    return np.concatenate([plain, plain[:, :, ::-1]])


def normalize(batch: Any, spec: BackboneSpec) -> Any:
    """Normalize pixels (N, S, S, 3) uint8, in numpy or torch, to (N, 3, S, S) float32 of the same kind and device.

    The values are in the backbone's units; channels stay last in memory.
    """
    xp = namespace(batch)
    values = xp.astype(xp.permute_dims(batch, (0, 3, 1, 2)), xp.float32)  # (N, 3, S, S)
    mean = xp.asarray(spec.mean, dtype=xp.float32, device=device(values))[:, None, None] * 255
    scale = 1 / (xp.asarray(spec.std, dtype=xp.float32, device=device(values))[:, None, None] * 255)
    values -= mean
    values *= scale
    return values


def prepare(image: Image.Image, spec: BackboneSpec) -> np.ndarray:
    """An RGB image prepared for the backbone, (3, S, S) float32."""
    prepared: np.ndarray = normalize(pixels(image, spec)[None], spec)[0]
    return prepared


def _window(size: tuple[int, int], side: int, shorter: int, across: float, down: float) -> Box:
    """The part of an image that becomes a crop of ``side`` pixels when its shorter side is scaled to ``shorter``."""
    least = min(size)
    scaled = (int(shorter * size[0] / least), int(shorter * size[1] / least))  # rounded as by torchvision's Resize
    return _cut(size, scaled, side, across, down)


def _cut(size: tuple[int, int], scaled: tuple[int, int], side: int, across: float, down: float) -> Box:
    """The square of ``side`` pixels at 0..1 of the way across and down a ``scaled`` image, in its own pixels.

    Resampling only this part equals resizing the whole image and cutting it, and a panorama never becomes a huge image.
    """
    left, top = round((scaled[0] - side) * across), round((scaled[1] - side) * down)
    wide, high = size[0] / scaled[0], size[1] / scaled[1]
    right, bottom = min((left + side) * wide, size[0]), min((top + side) * high, size[1])
    return left * wide, top * high, right, bottom


def _resample(image: Image.Image, box: Box, spec: BackboneSpec) -> np.ndarray:
    return np.array(image.resize((spec.size, spec.size), FILTERS[spec.filter], box))


def _three(name: str, values: Any) -> tuple[float, float, float]:
    if isinstance(values, int | float):
        values = [values]
    try:
        red, green, blue = map(float, [*values] * (3 if len(values) == 1 else 1))
    except (TypeError, ValueError, OverflowError):
        raise BackboneError(f"{name}: expected one number or three, got {shorten(values)}") from None
    if not all(map(math.isfinite, (red, green, blue))):
        raise BackboneError(f"{name}: {red}, {green}, {blue} are not all finite")
    return red, green, blue
