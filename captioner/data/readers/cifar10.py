"""CIFAR-10 (Krizhevsky 2009): the binary version, or a folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from captioner.data.labeled import LabeledImages, Splits, fixed_size
from captioner.data.readers.class_folders import read_class_folders
from captioner.data.records import ClassNames, find_folder
from captioner.errors import DataError
from captioner.files import require_regular

CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
SIDE, CHANNELS = 32, 3
RECORD = 1 + CHANNELS * SIDE**2
"""Bytes of an image: its class, then all red, all green and all blue values, row by row."""
FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}


def read_cifar10(root: Path, side: int, channels: int) -> tuple[ClassNames, Splits]:
    """CIFAR-10 from ``data_batch_1.bin`` and so on, or from ``train/airplane/...`` and ``test/airplane/...``.

    The Python version is refused, with advice: it consists of pickles, which run code when they are opened.
    """
    folder = find_folder(root, ("cifar-10-batches-bin",))
    if (folder / FILES["train"][0]).is_file():
        fixed_size("CIFAR-10", (SIDE, CHANNELS), side, channels)
        return ClassNames(CLASSES), {split: _read(folder, split) for split in FILES}
    for pickled in (root, root / "cifar-10-batches-py"):
        if (pickled / "data_batch_1").is_file():
            raise DataError(f"{pickled}: pickles are refused, as they may run code; get the binary version of CIFAR-10")
    if not (root / "train").is_dir():
        raise DataError(f"{root}: no CIFAR-10 here; looked for {FILES['train'][0]} and the folder train")
    return read_class_folders(root, side, channels, CLASSES)


def _read(folder: Path, split: str) -> LabeledImages:
    parts = [_records(folder / name) for name in FILES[split]]
    records = np.concatenate(parts)
    labels = records[:, 0].astype(np.int64)
    pixels = records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
    ids = (f"{split}/{number:05d}" for number in range(len(labels)))
    return LabeledImages(np.ascontiguousarray(pixels), labels, tuple(ids))


def _records(path: Path) -> np.ndarray:
    """The records of a file, (N, 3073) uint8."""
    require_regular(path, DataError)
    try:
        size = path.stat().st_size
        if not size or size % RECORD:
            raise DataError(f"{path}: {size} bytes, expected images of {RECORD} bytes; download the file again")
        records = np.fromfile(path, np.uint8).reshape(-1, RECORD)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if (largest := int(records[:, 0].max())) >= len(CLASSES):
        raise DataError(f"{path}: holds class {largest} of {len(CLASSES)}, counted from 0; download the file again")
    return records
