"""Tiny sets of labeled images in every format that is read."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image


def draw_images(count: int, side: int, channels: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise (N, S, S, C) uint8 with a bright bar whose place is the class (N,): easy to learn, hard to guess."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 80, (count, side, side, channels), dtype=np.uint8)
    width = side // classes
    for image, label in zip(pixels, labels, strict=True):
        image[:, label * width : (label + 1) * width] += 120
    return pixels, labels


def idx(values: np.ndarray) -> bytes:
    """An IDX file of bytes."""
    return (
        bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.astype("u1").tobytes()
    )


def write_mnist(root: Path, train: int = 60, test: int = 20) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for seed, (stem, count) in enumerate((("train", train), ("t10k", test))):
        pixels, labels = draw_images(count, 28, 1, 10, seed)
        (root / f"{stem}-images-idx3-ubyte").write_bytes(idx(pixels[..., 0]))
        (root / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))


def cifar10_batch(count: int, seed: int = 0) -> bytes:
    """A file of the binary version of CIFAR-10."""
    pixels, labels = draw_images(count, 32, 3, 10, seed)
    records = np.concatenate([labels[:, None].astype("u1"), pixels.transpose(0, 3, 1, 2).reshape(count, -1)], 1)
    return records.tobytes()


def write_cifar10(root: Path, count: int = 20) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        (root / f"{name}.bin").write_bytes(cifar10_batch(count, seed))


def write_folders(root: Path, classes: tuple[str, ...], count: int = 3, side: int = 8, mode: str = "RGB") -> None:
    """``train/CLASS/N.png`` and ``test/CLASS/N.png``; all pixels of an image are 10 times the number of its class."""
    for split in ("train", "test"):
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                Image.new(mode, (side, side), (10 * number,) * len(mode)).save(folder / f"{image}.png")
