"""JPEG files like Flickr's, cut from the photos in the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import ROOT
from captioner.data.images import open_image
from captioner.errors import CaptionerError

PHOTO = ROOT / "examples" / "photo.jpg"
SIZE = (500, 375)  # pixels; the longer side of every Flickr8k image is 500
QUALITY = 95
GRAIN = 4  # deviation of noise, in gray levels: enlarged images are smooth, and smooth files decode faster


def find_photo(photo: Path = PHOTO) -> Path:
    """``photo``; raises ``CaptionerError`` if it is missing."""
    if not photo.is_file():
        raise CaptionerError(f"{photo} is missing; benchmarks caption it and cut images from it")
    return photo


def make_images(folder: Path, count: int, photo: Path = PHOTO, seed: int = 0) -> list[Path]:
    """Write ``count`` JPEG files into ``folder``: different parts of ``photo`` and of the photos beside it.

    Each has about 100 KB; every fourth is in portrait format.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    images = [open_image(path) for path in sorted(find_photo(photo).parent.glob("*.jpg"))]
    paths = [folder / f"{number:04}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        size = SIZE[::-1] if number % 4 == 3 else SIZE
        _part(images[number % len(images)], size, generator).save(path, quality=QUALITY)
    return paths


def _part(image: Image.Image, size: tuple[int, int], generator: np.random.Generator) -> Image.Image:
    """A part of ``image``, from half to all of its size, at a random place, scaled to ``size`` pixels, with grain."""
    scale = min(image.width / size[0], image.height / size[1]) * generator.uniform(0.5, 1)
    wide, high = scale * size[0], scale * size[1]
    left, top = generator.uniform(0, image.width - wide), generator.uniform(0, image.height - high)
    part = image.resize(size, Image.Resampling.LANCZOS, (left, top, left + wide, top + high))
    noisy = np.asarray(part) + generator.normal(0, GRAIN, (size[1], size[0], 1))  # the same noise in all channels
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
