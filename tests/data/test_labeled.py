"""Readers of labeled images: CIFAR-10, MNIST, a folder for each class."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.data.labeled import READERS, hold_out, read_labeled
from captioner.data.readers.cifar10 import CLASSES
from captioner.errors import DataError, ImageError
from tests.labeled import cifar10_batch, draw_images, idx, write_cifar10, write_folders, write_mnist


def test_cifar10_binary_keeps_planes_rows_and_order(tmp_path: Path) -> None:
    """Would catch planes read as interleaved colors, rows as columns, and batches in another order."""
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    classes, splits = read_labeled("cifar10", tmp_path, 32, 3)
    assert classes.to_list() == list(CLASSES)
    train, test = splits["train"], splits["test"]
    assert (train.pixels.shape, test.pixels.shape) == ((100, 32, 32, 3), (20, 32, 32, 3))
    pixels, labels = draw_images(20, 32, 3, 10, seed=1)
    assert (train.pixels[20:40] == pixels).all() and (train.labels[20:40] == labels).all()
    assert train.ids[0] == "train/00000" and len(set(train.ids)) == 100


def test_cifar10_folders_number_classes_as_the_binary_version_does(tmp_path: Path) -> None:
    """Would catch classes numbered in the order of the folders that happen to be there."""
    write_folders(tmp_path, CLASSES[::-1], side=32)
    classes, splits = read_labeled("cifar10", tmp_path, 32, 3)
    assert classes.to_list() == list(CLASSES)
    assert splits["test"].ids[0] == "test/airplane/0.png" and splits["test"].labels[0] == 0
    assert (splits["train"].pixels[0] == 90).all()


def test_cifar10_pickles_are_refused(tmp_path: Path) -> None:
    """Would catch a reader that opens pickles, which run code."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match="pickles are refused.*binary version"):
        read_labeled("cifar10", tmp_path, 32, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cifar10_batch(20)[:-1], "61459 bytes, expected images of"),
        (b"", "0 bytes, expected"),
        (b"\x0a" + cifar10_batch(20)[1:], "holds class 10 of 10"),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """Would catch a cut file that shifts all that follow, and a class that no network has an output for."""
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_3.bin: .*{message}"):
        read_labeled("cifar10", tmp_path, 32, 3)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_from_idx_files(tmp_path: Path, packed: bool) -> None:
    """Would catch labels that belong to other images, and names as some programs unpack them."""
    write_mnist(tmp_path)
    for path in list(tmp_path.iterdir()):
        if packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        else:
            path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    classes, splits = read_labeled("mnist", tmp_path, 28, 1)
    pixels, labels = draw_images(60, 28, 1, 10)
    assert classes.to_list() == list("0123456789")
    assert (splits["train"].pixels == pixels).all() and (splits["train"].labels == labels).all()
    assert splits["test"].pixels.shape == (20, 28, 28, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx(np.zeros((60, 28, 28)))[:-1], "holds fewer than the 47040 bytes"),
        ("train-images-idx3-ubyte", idx(np.zeros((60, 28, 28))) + b"0", "holds more than the 47040 bytes"),
        ("train-images-idx3-ubyte", idx(np.zeros((60, 20, 28))), "20 x 28 pixels"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "more than the"),
        ("train-images-idx3-ubyte", idx(np.zeros(60)), "not an IDX file of bytes with 3 axes"),
        ("train-labels-idx1-ubyte", idx(np.zeros(59)), "60 images, .*59 labels"),
        ("train-labels-idx1-ubyte", idx(np.full(60, 10)), "label 10"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """Would catch a header that is believed: it may ask for all memory, or for images that are not there."""
    write_mnist(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_labeled("mnist", tmp_path, 28, 1)


def test_a_damaged_gzip_is_named(tmp_path: Path) -> None:
    """Would catch the errors of zlib reaching the user."""
    write_mnist(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[len(packed) // 2] ^= 255
    path.with_name(path.name + ".gz").write_bytes(packed)
    path.unlink()
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte.gz"):
        read_labeled("mnist", tmp_path, 28, 1)


def test_folders_without_splits_are_training_images(tmp_path: Path) -> None:
    """Would catch images that are squeezed instead of cut, and a gray network that gets colors."""
    for name, color in (("cat", 40), ("dog", 90)):
        (tmp_path / name).mkdir()
        wide = Image.new("RGB", (32, 16), (0, 0, 0))
        wide.paste((color,) * 3, (6, 0, 26, 16))
        wide.save(tmp_path / name / "wide.png")
    classes, splits = read_labeled("folders", tmp_path, 8, 1)
    assert classes.to_list() == ["cat", "dog"] and list(splits) == ["train"]
    assert splits["train"].ids == ("cat/wide.png", "dog/wide.png")
    assert splits["train"].pixels.shape == (2, 8, 8, 1)
    assert [int(image.min()) for image in splits["train"].pixels] == [40, 90]


def test_what_is_wrong_with_folders_is_said(tmp_path: Path) -> None:
    """Would catch images that are left out silently: the numbers would be those of another data set."""
    with pytest.raises(DataError, match="no such folder"):
        read_labeled("folders", tmp_path / "none", 8, 3)
    write_folders(tmp_path, ("cat", "dog"))
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "cow")
    with pytest.raises(DataError, match="no class 'cow' among the 2"):
        read_labeled("folders", tmp_path, 8, 3)
    Image.new("RGB", (8, 8)).save(tmp_path / "test" / "loose.png")
    with pytest.raises(DataError, match=r"loose.png: is not in a class folder"):
        read_labeled("folders", tmp_path, 8, 3)
    (tmp_path / "train" / "cat" / "bad.png").write_bytes(b"no image")
    (tmp_path / "test" / "loose.png").unlink()
    (tmp_path / "test" / "cow").rename(tmp_path / "test" / "dog")
    with pytest.raises(ImageError, match=r"bad.png"):
        read_labeled("folders", tmp_path, 8, 3)
    with pytest.raises(DataError, match="more than .* GB"):
        read_labeled("folders", tmp_path, 2**15, 3)


@pytest.mark.parametrize(
    ("name", "own"), [("cifar10", "data.side=32 and data.channels=3"), ("mnist", "data.side=28 and data.channels=1")]
)
def test_another_size_than_the_files_have_is_refused(tmp_path: Path, name: str, own: str) -> None:
    """Would catch images of 32 pixels read as if they had 24."""
    {"cifar10": write_cifar10, "mnist": write_mnist}[name](tmp_path)
    with pytest.raises(DataError, match=own):
        read_labeled(name, tmp_path, 24, 3)


@pytest.mark.parametrize("name", READERS)
def test_an_empty_folder_is_an_error(tmp_path: Path, name: str) -> None:
    """Would catch a data set of nothing."""
    with pytest.raises(DataError):
        read_labeled(name, tmp_path, 28, 1)


def test_held_out_images_are_not_trained_on(tmp_path: Path) -> None:
    """Would catch an image in both parts, and parts that change with the run."""
    write_mnist(tmp_path)
    train = read_labeled("mnist", tmp_path, 28, 1)[1]["train"]
    kept, held = hold_out(train, 20)
    assert (len(kept), len(held)) == (40, 20)
    assert sorted(kept.ids + held.ids) == sorted(train.ids)
    assert hold_out(train, 20)[1].ids == held.ids
    assert (train.labels[[train.ids.index(name) for name in held.ids]] == held.labels).all()
    with pytest.raises(DataError, match="data.val"):
        hold_out(train, 60)
