"""CIFAR-10 from image folders to its binary version."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from captioner.data.labeled import read_labeled
from captioner.data.readers.cifar10 import CLASSES
from preprocess.cifar10 import main
from tests.labeled import write_folders


def test_the_binary_version_holds_the_same_images(tmp_path: Path) -> None:
    """Would catch planes and pixels that are swapped, images under another label, and classes in blocks."""
    write_folders(tmp_path / "images", CLASSES, count=4, side=32)
    assert main([str(tmp_path / "images"), "-o", str(tmp_path / "binary")]) == 0
    _, folders = read_labeled("cifar10", tmp_path / "images", 32, 3)
    _, binary = read_labeled("cifar10", tmp_path / "binary", 32, 3)
    for split in ("train", "test"):
        pairs = [
            Counter((int(label), image.tobytes()) for label, image in zip(one.labels, one.pixels, strict=True))
            for one in (folders[split], binary[split])
        ]
        assert pairs[0] == pairs[1] and len(binary[split]) == 40
    assert (np.diff(binary["train"].labels) != 0).sum() > 25
    assert len(list((tmp_path / "binary").iterdir())) == 6


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    """Would catch a file of somebody's lost under a name of ours."""
    write_folders(tmp_path / "images", CLASSES, count=1, side=32)
    (tmp_path / "data_batch_2.bin").write_bytes(b"mine")
    assert main([str(tmp_path / "images"), "-o", str(tmp_path)]) == 2
    assert (tmp_path / "data_batch_2.bin").read_bytes() == b"mine"
