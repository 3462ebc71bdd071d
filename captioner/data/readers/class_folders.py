"""A folder for each class: ``train/cat/1.jpg``, ``test/dog/2.png``, or without splits ``cat/1.jpg``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from captioner.data.images import ImageFile, find_named, open_image
from captioner.data.labeled import LARGEST, LabeledImages, Splits
from captioner.data.records import SPLIT_NAMES, ClassNames
from captioner.errors import DataError


def read_class_folders(
    root: Path, side: int, channels: int, classes: Sequence[str] | None = None
) -> tuple[ClassNames, Splits]:
    """Images scaled so that their shorter side is ``side``, and cut to the middle; ``DataError`` names unreadable ones.

    ``classes`` sets the order of the classes; by default they are sorted by name. A class in a split that the training
    images lack is an error.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give one that holds a folder for each class")
    folders = {SPLIT_NAMES[path.name.lower()]: path for path in sorted(root.iterdir()) if _is_split(path)}
    files = {split: _files(folder) for split, folder in (folders or {"train": root}).items()}
    if "train" not in files:
        raise DataError(f"{root}: has folders of {', '.join(files)} but no folder train")
    names = ClassNames(tuple(classes or sorted({name for name, _ in files["train"]})))
    if sum(map(len, files.values())) * side**2 * channels > LARGEST:
        raise DataError(f"{root}: its images take more than {LARGEST / 1e9:.0f} GB of memory; set data.side lower")
    return names, {split: _read(root, found, names, side, channels) for split, found in files.items()}


def _is_split(path: Path) -> bool:
    return path.is_dir() and path.name.lower() in SPLIT_NAMES


def _files(folder: Path) -> list[tuple[str, ImageFile]]:
    """(Class, file) of each image below ``folder``; ids start with the folder's name if that is a split."""
    found = []
    for file in find_named([str(folder)]):
        if not isinstance(file, ImageFile):
            raise file
        name, slash, _ = file.id.partition("/")
        if not slash:
            raise DataError(f"{file.path}: is not in a class folder; put each image into the folder of its class")
        found.append((name, file))
    return found


def _read(
    root: Path, files: Sequence[tuple[str, ImageFile]], names: ClassNames, side: int, channels: int
) -> LabeledImages:
    mode = "L" if channels == 1 else "RGB"
    pixels = np.empty((len(files), side, side, channels), np.uint8)
    for row, (_, file) in enumerate(files):
        pixels[row] = np.asarray(_square(open_image(file.path), side).convert(mode)).reshape(side, side, channels)
    labels = np.array([names.number(name) for name, _ in files], np.int64)
    return LabeledImages(pixels, labels, tuple(file.path.relative_to(root).as_posix() for _, file in files))


def _square(image: Image.Image, side: int) -> Image.Image:
    """The largest square in the middle of an image, scaled to ``side``."""
    if image.size == (side, side):
        return image
    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    return image.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + edge, top + edge))
