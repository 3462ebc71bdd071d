"""Captioning a batch of pictures against its CNN alone.

Ours: ``Captioner.results``, from JPEG files to sentences, searched as the model's checkpoint says.
Baseline: the same files opened, scaled and put through the same CNN in the same batches, without a sentence.
Both: float32, two threads that open pictures, all of torch's threads for the network.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.measure import Measurement, compare, rate
from benchmarks.pictures import PHOTO, make_pictures
from captioner.errors import CaptionerError, ImageError
from captioner.pipeline import Captioner, ahead, batches, load

TARGET = 0.7


def measure(
    count: int = 256, batch_size: int = 64, rounds: int = 3, photo: Path = PHOTO, model: str = "default"
) -> list[Measurement]:
    """Captions a second over pictures a second through the CNN alone, for ``count`` pictures."""
    captioner = load(model)
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_pictures(Path(folder), count, photo)
        return [
            compare(
                "captions over the CNN alone, from files",
                "pictures/s",
                rate(count, lambda: caption(captioner, pictures, batch_size)),
                rate(count, lambda: see(captioner, pictures, batch_size)),
                rounds=rounds,
                target=TARGET,
            )
        ]


def caption(captioner: Captioner, pictures: list[Path], batch_size: int) -> None:
    """Every picture to a sentence; ``CaptionerError`` if one gets none."""
    for result in captioner.results(pictures, batch_size=batch_size):
        if not result.captions:
            raise CaptionerError(f"{result.image}: {result.error}")


def see(captioner: Captioner, pictures: list[Path], batch_size: int) -> None:
    """Every picture to its feature, on the way that captions take."""
    captioner.backbones  # noqa: B018  # loaded here and not by two threads at once
    with closing(ahead(captioner._prepare, pictures, window=2 * batch_size)) as prepared:
        for batch in batches(prepared, batch_size):
            captioner._features([inputs for _, inputs in batch if not isinstance(inputs, ImageError)])
