"""Training data of image classifiers: all images as one tensor of bytes, cropped and mirrored on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captioner.backbones.spec import BackboneSpec
from captioner.config import Experiment
from captioner.data.labeled import LabeledImages, hold_out, read_labeled
from captioner.data.records import ClassNames
from captioner.errors import DataError
from captioner.tasks.images.config import ImageDataConfig

KEY = "pixels"
"""Key of the input of image classifiers, which read no feature of another network."""


@dataclass(frozen=True)
class ImageBatch:
    """Images (B, S, S, C) uint8 and their class indices (B,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> ImageBatch:
        return ImageBatch(self.images.to(device), self.labels.to(device))


class Variation(NamedTuple):
    """The rows of an epoch in order (N,), where each image is cropped (N,), and whether it is mirrored (N,)."""

    rows: Tensor
    top: Tensor
    left: Tensor
    flip: Tensor


class ImageData:
    """Everything that a run reads; equal in every process. Implements ``captioner.tasks.base.TrainingData``."""

    def __init__(
        self,
        config: ImageDataConfig,
        classes: ClassNames,
        train: LabeledImages,
        val: LabeledImages,
        batch_size: int,
        seed: int,
    ) -> None:
        self.config, self.outputs = config, classes
        self.batch_size, self.seed = batch_size, seed
        self.inputs: Sequence[BackboneSpec] = (pixel_spec(config, train),)
        self.pixels, self.labels = torch.from_numpy(train.pixels), torch.from_numpy(train.labels)
        self.val_pixels, self.val_labels = torch.from_numpy(val.pixels), torch.from_numpy(val.labels)

    def to(self, device: torch.device) -> None:
        """Move all images to ``device``, where batches are then made."""
        for name in ("pixels", "labels", "val_pixels", "val_labels"):
            setattr(self, name, getattr(self, name).to(device))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def batches(self, epoch: int, skip: int = 0, rank: int = 0, size: int = 1) -> Iterator[ImageBatch]:
        varied = self.vary(epoch)
        for first in range(skip * self.batch_size, len(self.labels), self.batch_size):
            part = Variation(*(each[first : first + self.batch_size][rank::size] for each in varied))
            images = crop(self.pixels, part, self.config.crop, self.config.pad)
            yield ImageBatch(images, self.labels[part.rows])

    def vary(self, epoch: int) -> Variation:
        """Order, crops and mirroring of an epoch, on the images' device; a function of seed and epoch."""
        config, count = self.config, len(self.labels)
        generator = np.random.default_rng([self.seed, epoch])
        places = config.side - config.crop + 2 * config.pad + 1
        rows = generator.permutation(count)
        top, left = generator.integers(places, size=(2, count))
        flip = generator.random(count) < (0.5 if config.flip else 0)
        return Variation(*(torch.from_numpy(each).to(self.pixels.device) for each in (rows, top, left, flip)))


def load_images(experiment: Experiment) -> ImageData:
    """The training images and, if the data set has no val split, those held out from them as dev."""
    config, train = experiment.config.data, experiment.train
    classes, splits = read_labeled(config.format, config.root, config.side, config.channels)
    if "train" not in splits:
        raise DataError(f"{config.root}: no training images; there are: {', '.join(splits)}")
    known = "val" in splits
    parts = (splits["train"], splits["val"]) if known else hold_out(splits["train"], config.val)
    return ImageData(config, classes, *parts, train.batch_size, train.seed)


def pixel_spec(config: ImageDataConfig, images: LabeledImages) -> BackboneSpec:
    """How a photo becomes the network's input: scaled, cropped to the middle, normalized by the mean of ``images``."""
    values = images.pixels.reshape(-1, config.channels)
    # From counts: all pixels as floats would take eight times the memory.
    counts = np.stack([np.bincount(channel, minlength=256) for channel in values.T])
    levels = np.arange(256) / 255
    mean = counts @ levels / len(values)
    std = np.sqrt(np.maximum(counts @ levels**2 / len(values) - mean**2, 1e-6))
    triple = 3 // config.channels
    return BackboneSpec(
        key=KEY,
        dimension=config.channels * config.crop**2,
        size=config.crop,
        shorter=config.side,
        mean=tuple(mean.tolist() * triple),
        std=tuple(std.tolist() * triple),
    )


def crop(pixels: Tensor, part: Variation, side: int, pad: int) -> Tensor:
    """Crop the images ``part.rows`` (B,) of ``pixels`` (N, H, W, C) to (B, side, side, C), and mirror some of them.

    A position of 0 is ``pad`` pixels outside the image; pixels there mirror those inside, without repeating the border.
    """
    steps = torch.arange(side, device=pixels.device)
    across = torch.where(part.flip[:, None], side - 1 - steps, steps)  # (B, side)
    down = _mirrored(part.top[:, None] + steps - pad, pixels.shape[1])
    across = _mirrored(part.left[:, None] + across - pad, pixels.shape[2])
    return pixels[part.rows[:, None, None], down[:, :, None], across[:, None, :]]


def middle(pixels: Tensor, side: int) -> Tensor:
    """The middle (N, side, side, C) of ``pixels`` (N, H, W, C)."""
    top, left = ((length - side) // 2 for length in pixels.shape[1:3])
    return pixels[:, top : top + side, left : left + side]


def _mirrored(places: Tensor, length: int) -> Tensor:
    places = places.abs()
    return torch.minimum(places, 2 * (length - 1) - places)
