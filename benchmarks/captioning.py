"""Captioning of a batch of images, compared with its CNN alone.

Ours: ``LRCNCaptioner.results``, from JPEG files to sentences, decoded with the checkpoint's settings.
Baseline: the same files opened, scaled and put through the same CNN in the same batches, without a sentence.
Both: float32, two threads that open images, all threads of the runtime for the network.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.images import PHOTO, make_images
from benchmarks.measure import Measurement, compare, rate
from captioner.errors import CaptionerError, ImageError
from captioner.predictors import load
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.predictors.streams import batches, prefetch

TARGET = 0.85
RUNTIMES_TARGET = 4.0
AGREEMENT = 1e-3
"""Largest accepted difference between the scores of two runtimes' captions of an image, in nats."""


def measure(
    count: int = 256, batch_size: int = 64, rounds: int = 3, photo: Path = PHOTO, model: str = "default"
) -> list[Measurement]:
    """Captions per second over images per second through the CNN alone, for ``count`` images."""
    captioner = load(model)
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder), count, photo)
        return [
            compare(
                "captions over the CNN alone, from files",
                "images/s",
                rate(count, lambda: caption(captioner, images, batch_size)),
                rate(count, lambda: encode(captioner, images, batch_size)),
                rounds=rounds,
                target=TARGET,
            )
        ]


def measure_runtimes(
    count: int = 256, batch_size: int = 64, rounds: int = 3, photo: Path = PHOTO, model: str = "default"
) -> list[Measurement]:
    """Captions per second of ONNX Runtime over those of torch, with the same files and model, on a CPU.

    Raises ``CaptionerError`` if the scores of captions differ by more than ``AGREEMENT``.
    """
    onnx, torch = (load(model, runtime=runtime) for runtime in ("onnx", "torch"))
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder), count, photo)
        check_agreement(onnx, torch, images, batch_size)
        return [
            compare(
                "captions by ONNX Runtime over torch, from files",
                "images/s",
                rate(count, lambda: caption(onnx, images, batch_size)),
                rate(count, lambda: caption(torch, images, batch_size)),
                rounds=rounds,
                target=RUNTIMES_TARGET,
            )
        ]


def check_agreement(one: LRCNCaptioner, other: LRCNCaptioner, images: list[Path], batch_size: int) -> None:
    """Raise ``CaptionerError`` if the scores of two captioners' captions differ by more than ``AGREEMENT``.

    Beam search ranks by the score. Rounding may decide between sentences with nearly the same score.
    """
    penalty = one.checkpoint.decoding.length_penalty
    pairs = zip(one.results(images, batch_size=batch_size), other.results(images, batch_size=batch_size), strict=True)
    for ours, theirs in pairs:
        best = (ours.captions[0], theirs.captions[0])
        scores = [found.log_prob / (len(found.text.split()) + 1) ** penalty for found in best]
        if abs(scores[0] - scores[1]) > AGREEMENT:
            raise CaptionerError(f"{ours.image}: the runtimes' captions score {scores[0]:.4f} and {scores[1]:.4f}")


def caption(captioner: LRCNCaptioner, images: list[Path], batch_size: int) -> None:
    """Caption each image; raises ``CaptionerError`` if one gets no caption."""
    for result in captioner.results(images, batch_size=batch_size):
        if not result.captions:
            raise CaptionerError(f"{result.image}: {result.error}")


def encode(captioner: LRCNCaptioner, images: list[Path], batch_size: int) -> None:
    """Compute each image's feature, with the same code as for captions."""
    captioner.runtime.prepare()  # here, since two threads must not load it at once
    with closing(prefetch(captioner.prepare, images, window=2 * batch_size)) as prepared:
        for batch in batches(prepared, batch_size):
            captioner.encode([inputs for _, inputs in batch if not isinstance(inputs, ImageError)])
