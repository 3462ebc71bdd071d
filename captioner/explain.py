"""Images that explain a classifier: its first kernels, their feature maps, and a bar chart of probabilities.

All are drawn with Pillow alone, for the command line, reports and web pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK, SOFT, ACCENT, PAPER = (28, 33, 38), (93, 104, 115), (43, 108, 163), (255, 255, 255)
GAP = 4  # pixels between tiles
MARGIN = 24
WIDTH = 960  # width of an explanation in pixels
TEXT = 15  # height of letters in pixels
ROW = 30  # height of a bar and the space below it
MOST_TILES = 64

Bytes = NDArray[np.uint8]


def kernel_tiles(kernels: NDArray[np.float32]) -> Bytes:
    """Kernels (O, I, H, W) as colors (O, H, W, 3): 0 is gray, each kernel has its full range.

    Kernels over more than three channels, or over two, are averaged over the channels.
    """
    if kernels.shape[1] not in (1, 3):
        kernels = kernels.mean(1, keepdims=True)
    most = np.abs(kernels).max((1, 2, 3), keepdims=True)
    values = 127.5 + 127.5 * kernels / np.maximum(most, 1e-12)
    return np.broadcast_to(values.transpose(0, 2, 3, 1), (*_sides(kernels), 3)).round().astype(np.uint8)


def map_tiles(maps: NDArray[np.float32]) -> Bytes:
    """Feature maps (O, H, W) as gray (O, H, W, 3), each from its lowest value (black) to its highest (white)."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    values = 255 * (maps - low) / np.maximum(high - low, 1e-12)
    return np.broadcast_to(values[..., None], (*maps.shape, 3)).round().astype(np.uint8)


def sheet(tiles: Bytes, width: int, across: int) -> Image.Image:
    """At most 64 tiles (O, H, W, 3) side by side, ``across`` per row, which is ``width`` pixels wide."""
    tiles = tiles[:MOST_TILES]
    edge = (width - GAP * (across - 1)) // across
    height = round(edge * tiles.shape[1] / tiles.shape[2])
    rows = math.ceil(len(tiles) / across)
    paper = Image.new("RGB", (width, rows * (height + GAP) - GAP), PAPER)
    larger = edge > tiles.shape[2]  # pixels of small kernels stay squares
    filter = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
    for number, tile in enumerate(tiles):
        row, column = divmod(number, across)
        image = Image.fromarray(tile).resize((edge, height), filter)
        paper.paste(image, (column * (edge + GAP), row * (height + GAP)))
    return paper


def probability_bars(classes: Sequence[tuple[str, float]], width: int) -> Image.Image:
    """A bar for each class (name, probability in 0..1), in their order."""
    paper = Image.new("RGB", (width, ROW * max(len(classes), 1)), PAPER)
    draw = ImageDraw.Draw(paper)
    font = ImageFont.load_default(TEXT)
    name_width, number_width = width * 2 // 5, 64
    longest = width - name_width - number_width
    for number, (name, probability) in enumerate(classes):
        top = number * ROW
        middle = top + ROW // 2
        draw.text((name_width - 10, middle), _fitted(name, name_width - 10, font), INK, font, anchor="rm")
        end = name_width + max(1, round(longest * min(max(probability, 0), 1)))
        draw.rectangle((name_width, top + 5, end, top + ROW - 5), ACCENT)
        draw.text((end + 8, middle), f"{100 * probability:.1f} %", SOFT, font, anchor="lm")
    return paper


def explanation(
    image: Image.Image,
    classes: Sequence[tuple[str, float]],
    kernels: NDArray[np.float32],
    maps: NDArray[np.float32],
) -> Image.Image:
    """The RGB ``image`` beside its probabilities, then the kernels (O, I, H, W) and their maps (O, H', W')."""
    inside = WIDTH - 2 * MARGIN
    photo = image.copy()
    photo.thumbnail((inside * 2 // 5, inside * 2 // 5))
    factor = inside // 5 // max(photo.size)
    if factor > 1:  # an image of 28 pixels
        photo = photo.resize((photo.width * factor, photo.height * factor), Image.Resampling.NEAREST)
    bars = probability_bars(classes, inside - photo.width - MARGIN)
    top = Image.new("RGB", (inside, max(photo.height, bars.height)), PAPER)
    top.paste(photo, (0, 0))
    top.paste(bars, (photo.width + MARGIN, (top.height - bars.height) // 2))
    parts = [
        top,
        _title("Kernels of the first convolution"),
        sheet(kernel_tiles(kernels), inside, 16),
        _title("Its feature maps for this image"),
        sheet(map_tiles(maps), inside, 8),
    ]
    paper = Image.new("RGB", (WIDTH, sum(part.height + MARGIN for part in parts) + MARGIN), PAPER)
    at = MARGIN
    for part in parts:
        paper.paste(part, (MARGIN, at))
        at += part.height + MARGIN
    return paper


def _title(text: str) -> Image.Image:
    font = ImageFont.load_default(TEXT + 2)
    paper = Image.new("RGB", (WIDTH - 2 * MARGIN, TEXT + 6), PAPER)
    ImageDraw.Draw(paper).text((0, paper.height // 2), text, INK, font, anchor="lm")
    return paper


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """``text``, cut at its end if it is wider than ``width`` pixels; letters that the font lacks are replaced."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _sides(kernels: NDArray[np.float32]) -> tuple[int, int, int]:
    count, _, height, width = kernels.shape
    return count, height, width
