"""Feature extraction against the network alone.

Ours: ``captioner.features.extract`` as the command calls it, from JPEG files to a finished store: workers start, files
are read, decoded and scaled, values normalised, the network run, rows written and merged.
Baseline: the same network on the same pictures, which lie ready in memory as normalised batches.
Both: float32, the same batch size, channels last, all of torch's threads. Weights are random: they cost the same.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Measurement, compare, rate
from benchmarks.pictures import PHOTO, make_pictures
from captioner.backbones import Backbone, load_backbone
from captioner.backbones.compact import CompactCNN
from captioner.backbones.spec import normalise, pixels
from captioner.data.images import find_named, open_image
from captioner.errors import CaptionerError
from captioner.features.extract import extract
from captioner.pipeline import batches

TARGET = 0.9  # for networks of the usual size; the compact one leaves little time to open pictures in


def measure(
    count: int = 128,
    batch_size: int = 32,
    workers: int = 2,
    rounds: int = 2,
    networks: tuple[str, ...] = ("resnet50", "compact"),
    photo: Path = PHOTO,
) -> list[Measurement]:
    """Images a second of ``extract`` over those of the bare network, for ``count`` pictures."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_pictures(Path(folder, "pictures"), count, photo)
        return [_measure(network, pictures, batch_size, workers, rounds) for network in networks]


def _measure(network: str, pictures: list[Path], batch_size: int, workers: int, rounds: int) -> Measurement:
    backbone = random_backbone(network).to(memory_format=torch.channels_last)
    ready = _ready(backbone, pictures, batch_size)
    numbers = itertools.count()
    folder = pictures[0].parent

    def ours() -> None:
        store = folder.parent / f"{network}-{next(numbers)}.h5"
        report = extract(find_named([str(folder)]), backbone, store, batch_size=batch_size, workers=workers)
        if report.done != len(pictures):
            raise CaptionerError(f"{report.done} of {len(pictures)} pictures were extracted")

    @torch.inference_mode()
    def bare() -> None:
        for images in ready:
            backbone(images)

    with torch.inference_mode():
        backbone(ready[0])
    return compare(
        f"extraction over bare {network}, {workers} workers",
        "images/s",
        rate(len(pictures), ours),
        rate(len(pictures), bare),
        rounds=rounds,
        warm_up=False,
        target=None if network == "compact" else TARGET,
    )


def random_backbone(network: str) -> Backbone:
    """``compact`` or a network of torchvision's, pooled, without pretrained weights and so without a download."""
    if network == "compact":
        return load_backbone("compact", state=CompactCNN().state_dict())
    from captioner.backbones.torchvision import classifier

    return load_backbone(f"torchvision:{network}@pool", state=classifier(network).state_dict())


def _ready(backbone: Backbone, pictures: list[Path], batch_size: int) -> list[torch.Tensor]:
    """The pictures as the network sees them, normalised batches (N, 3, S, S)."""
    cut = (pixels(open_image(path), backbone.spec) for path in pictures)  # (S, S, 3) each
    return [normalise(np.stack(batch), backbone.spec) for batch in batches(cut, batch_size)]
