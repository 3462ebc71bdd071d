"""Convert CIFAR-10 from image folders to its binary version, which loads in a second.

    python -m preprocess.cifar10 FOLDER -o data/cifar10

FOLDER holds train/airplane/... and test/airplane/.... The images are written to the five training files in one random
order, the same every time, because published copies in class folders would otherwise be read class by class.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from captioner.cli.program import create_app, run
from captioner.data.labeled import LabeledImages
from captioner.data.readers.cifar10 import CHANNELS, CLASSES, FILES, SIDE
from captioner.data.readers.class_folders import read_class_folders
from captioner.errors import DataError, print_error
from captioner.files import Kind, atomic_path, check_output

BATCH = Kind("a file of CIFAR-10", rb"[\x00-\x09]")


def cifar10(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images in a folder for each class.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the six files.")],
) -> None:
    paths = {split: [output / name for name in names] for split, names in FILES.items()}
    for path in [path for several in paths.values() for path in several]:
        check_output("-o", path, BATCH)
    _, splits = read_class_folders(folder, SIDE, CHANNELS, CLASSES)
    if missing := [split for split in FILES if split not in splits]:
        raise DataError(f"{folder}: has no folder {missing[0]}")
    for split, files in paths.items():
        records = to_records(splits[split])
        for path, part in zip(files, np.array_split(records, len(files)), strict=True):
            with atomic_path(path) as temporary:
                temporary.write_bytes(part.tobytes())
        print_error(f"{len(records)} images of {split} written to {output}")


def to_records(images: LabeledImages, seed: int = 0) -> np.ndarray:
    """Images as records (N, 3073) uint8 in random order: the class, then all red, green and blue values."""
    order = np.random.default_rng(seed).permutation(len(images))
    planes = images.pixels[order].transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([images.labels[order, None].astype(np.uint8), planes], 1)


app = create_app(__doc__, cifar10)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
