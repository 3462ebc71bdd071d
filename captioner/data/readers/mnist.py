"""MNIST (LeCun et al. 1998): IDX files, compressed or not, or a folder for each digit."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from captioner.data.labeled import LARGEST, LabeledImages, Splits, fixed_size
from captioner.data.readers.class_folders import read_class_folders
from captioner.data.records import ClassNames, find_file
from captioner.errors import DataError
from captioner.files import require_regular

CLASSES = tuple("0123456789")
SIDE = 28
STEMS = {"train": "train", "test": "t10k"}
"""First part of the file names of each split."""


def read_mnist(root: Path, side: int, channels: int) -> tuple[ClassNames, Splits]:
    """MNIST from ``train-images-idx3-ubyte`` and so on (``.gz`` too), or from ``train/0/...`` and ``test/0/...``."""
    if (root / "train").is_dir():
        return read_class_folders(root, side, channels, CLASSES)
    fixed_size("MNIST", (SIDE, 1), side, channels)
    return ClassNames(CLASSES), {split: _read(root, split) for split in STEMS}


def _read(root: Path, split: str) -> LabeledImages:
    images, labels = (_file(root, split, part) for part in ("images-idx3", "labels-idx1"))
    pixels, numbers = read_idx(images, 3), read_idx(labels, 1)
    if pixels.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{images}: images of {pixels.shape[1]} x {pixels.shape[2]} pixels, not {SIDE} x {SIDE}")
    if len(pixels) != len(numbers) or not len(numbers):
        raise DataError(f"{images} holds {len(pixels)} images, {labels} {len(numbers)} labels; download both again")
    if (largest := int(numbers.max())) >= len(CLASSES):
        raise DataError(f"{labels}: holds the label {largest}; digits end at 9")
    ids = tuple(f"{split}/{number:05d}" for number in range(len(numbers)))
    return LabeledImages(pixels[..., None], numbers.astype(np.int64), ids)


def _file(root: Path, split: str, part: str) -> Path:
    """The file of a split, under its published name or with a dot in the name, as some programs unpack it."""
    stem = f"{STEMS[split]}-{part}"
    names = [
        f"{name}{suffix}"
        for name in (f"{stem}-ubyte", f"{stem.replace('-idx', '.idx')}-ubyte")
        for suffix in ("", ".gz")
    ]
    return find_file(root, tuple(names), "MNIST in IDX files")


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The bytes of an IDX file as an array with ``axes`` axes; raises ``DataError`` for another number or type.

    Layout: two zero bytes, the type (8: unsigned bytes), the number of axes, the length of each as a big-endian 32-bit
    number, then the values.
    """
    require_regular(path, DataError)
    start = 4 + 4 * axes
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(start)
            if len(header) < start or header[:4] != bytes((0, 0, 8, axes)):
                raise DataError(f"{path}: not an IDX file of bytes with {axes} axes; download the file again")
            shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, start, 4))
            count = int(np.prod(shape, dtype=object))
            if count > LARGEST:
                raise DataError(f"{path}: says that it holds {count} bytes, more than the {LARGEST} that are read")
            content = stream.read(count + 1)  # one more byte reveals a file that is too long
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or not readable: {error}; download the file again") from error
    if len(content) != count:
        raise DataError(f"{path}: holds {'fewer' if len(content) < count else 'more'} than the {count} bytes it says")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()  # torch wants writable arrays
