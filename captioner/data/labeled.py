"""Labeled images as arrays of bytes in memory. To add a data set, write a reader and add one line to ``READERS``.

A reader takes the root, and the side in pixels and the number of channels (1 gray, 3 RGB) that images are converted to.
It returns the names of the classes, and the images of each split that exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from captioner.data.records import ClassNames
from captioner.errors import DataError
from captioner.registry import resolve

READERS: dict[str, str] = {
    "cifar10": "captioner.data.readers.cifar10:read_cifar10",
    "mnist": "captioner.data.readers.mnist:read_mnist",
    "folders": "captioner.data.readers.class_folders:read_class_folders",
}
LARGEST = 2**33
"""Most bytes of memory for the images of a data set."""


@dataclass(frozen=True)
class LabeledImages:
    """Images of one size, with their class indices."""

    pixels: NDArray[np.uint8]
    """(N, H, W, C), C is 1 (gray) or 3 (RGB)."""
    labels: NDArray[np.int64]
    """Class indices (N,), from 0."""
    ids: tuple[str, ...]
    """A name for each image, for example its path below the root."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> LabeledImages:
        """The images of ``rows`` (M,), in that order."""
        return LabeledImages(self.pixels[rows], self.labels[rows], tuple(self.ids[row] for row in rows))


Splits = Mapping[str, LabeledImages]
"""Images by split: train, val and test, or some of them."""


def read_labeled(format: str, root: str | Path, side: int, channels: int) -> tuple[ClassNames, Splits]:
    """The classes and images of the data set at ``root``; raises ``DataError`` for invalid files."""
    found: tuple[ClassNames, Splits] = resolve(READERS, format, "format of labeled images", DataError)(
        Path(root), side, channels
    )
    return found


def hold_out(images: LabeledImages, count: int, seed: int = 0) -> tuple[LabeledImages, LabeledImages]:
    """Split ``images`` at random, by ``seed``, into all but ``count`` images and the other ``count``."""
    if not 0 < count < len(images):
        raise DataError(f"cannot hold out {count} of {len(images)} training images; set data.val to fewer")
    order = np.random.default_rng(seed).permutation(len(images))
    return images.take(np.sort(order[count:])), images.take(np.sort(order[:count]))


def fixed_size(what: str, own: tuple[int, int], side: int, channels: int) -> None:
    """Raise ``DataError`` unless ``side`` and ``channels`` are those of the data set's files."""
    if own != (side, channels):
        raise DataError(f"{what} needs data.side={own[0]} and data.channels={own[1]}, not {side} and {channels}")
