"""Images that explain a classifier."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from captioner.explain import ACCENT, GAP, PAPER, WIDTH, explanation, kernel_tiles, map_tiles, probability_bars, sheet


def test_a_kernel_of_zeros_is_gray_and_each_has_its_own_range() -> None:
    """Would catch kernels whose zero differs, and small ones that vanish beside large ones."""
    kernels = np.zeros((3, 3, 2, 2), np.float32)
    kernels[1, 0, 0, 0], kernels[2, 2, 1, 1] = 1e-3, -50
    tiles = kernel_tiles(kernels)
    assert tiles.shape == (3, 2, 2, 3) and tiles.dtype == np.uint8
    assert (tiles[0] == 128).all()
    assert tiles[1, 0, 0].tolist() == [255, 128, 128] and tiles[2, 1, 1].tolist() == [128, 128, 0]


@pytest.mark.parametrize("channels", [1, 2, 64])
def test_kernels_over_other_channels_are_gray(channels: int) -> None:
    """Would catch a network for digits, whose kernels have one channel."""
    tiles = kernel_tiles(np.random.default_rng(0).normal(size=(5, channels, 4, 3)).astype(np.float32))
    assert tiles.shape == (5, 4, 3, 3)
    assert (tiles[..., 0] == tiles[..., 1]).all()


def test_maps_go_from_black_to_white() -> None:
    """Would catch a constant map that divides by zero."""
    tiles = map_tiles(np.array([[[1.0, 3.0], [2.0, 1.0]], [[7.0, 7.0], [7.0, 7.0]]], np.float32))
    assert tiles[0, ..., 0].tolist() == [[0, 255], [128, 0]] and (tiles[1] == 0).all()


def test_a_sheet_has_every_tile_in_its_place() -> None:
    """Would catch rows and columns that are swapped, and tiles drawn over each other."""
    tiles = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.full((5, 2, 2, 3), 40, np.uint8)
    drawn = np.asarray(sheet(tiles, 3 * 10 + 2 * GAP, 3))
    assert drawn.shape == (20 + GAP, 30 + 2 * GAP, 3)
    assert [int(drawn[5, column * (10 + GAP) + 5, 0]) for column in range(3)] == [40, 80, 120]
    assert [int(drawn[10 + GAP + 5, column * (10 + GAP) + 5, 0]) for column in range(3)] == [160, 200, 255]
    assert sheet(np.zeros((200, 3, 3, 3), np.uint8), 400, 8).height < 400


def test_bars_are_as_long_as_their_probabilities() -> None:
    """Would catch bars scaled to the longest, which make every model look sure."""
    drawn = np.asarray(probability_bars([("cat", 0.8), ("日本 dog" * 30, 0.4), ("none", 0.0)], 600))
    lengths = [int((row == ACCENT).all(-1).sum()) for row in drawn[8::30]]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=3) and lengths[2] <= 2


@pytest.mark.parametrize("size", [(28, 28), (4000, 300), (30, 2000)])
def test_the_page_holds_everything(size: tuple[int, int]) -> None:
    """Would catch digits too small to see, and panoramas that leave the page."""
    rng = np.random.default_rng(0)
    kernels, maps = rng.normal(size=(20, 1, 5, 5)), rng.normal(size=(20, 24, 24))
    page = explanation(Image.new("RGB", size, (200, 10, 10)), [("7", 0.9), ("1", 0.1)], kernels, maps)
    drawn = np.asarray(page)
    assert page.width == WIDTH and 400 < page.height < 2000
    red = (drawn == (200, 10, 10)).all(-1)
    assert red.any() and not red[:, -20:].any()
    assert (drawn[-1] == PAPER).all() and (drawn == ACCENT).all(-1).any()
