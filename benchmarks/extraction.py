"""Feature extraction, compared with the network alone.

Ours: ``captioner.features.extract`` as the command calls it, from JPEG files to a finished store: workers start, files
are read, decoded and scaled, values normalized, the network run, rows written and merged.
Baseline: the same network on the same images, which are already in memory as normalized batches.
Both: float32, the same batch size, channels last, all of torch's threads. Weights are random; the time is the same.
``default`` has its own weights and a graph, so that ``extract`` uses ONNX Runtime; the baseline is torch.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.images import PHOTO, make_images
from benchmarks.measure import Measurement, compare, rate
from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone
from captioner.backbones.compact import CompactCNN
from captioner.backbones.spec import normalize, pixels
from captioner.data.images import find_named, open_image
from captioner.errors import CaptionerError
from captioner.features.extract import extract
from captioner.predictors.streams import batches

TARGET = 0.9  # for networks of the usual size
TARGETS = {"compact": None, "default": 1.5}  # compact is as fast as opening the images


def measure(
    count: int = 128,
    batch_size: int = 32,
    workers: int = 2,
    rounds: int = 2,
    networks: tuple[str, ...] = ("resnet50", "compact", "default"),
    photo: Path = PHOTO,
) -> list[Measurement]:
    """Images per second of ``extract`` over those of the bare network, for ``count`` images."""
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder, "images"), count, photo)
        return [_measure(network, images, batch_size, workers, rounds) for network in networks]


def _measure(network: str, images: list[Path], batch_size: int, workers: int, rounds: int) -> Measurement:
    backbone = backbone_of(network).to(memory_format=torch.channels_last)
    ready = _ready(backbone, images, batch_size)
    numbers = itertools.count()
    folder = images[0].parent

    def ours() -> None:
        store = folder.parent / f"{network}-{next(numbers)}.h5"
        report = extract(find_named([str(folder)]), backbone, store, batch_size=batch_size, workers=workers)
        if report.done != len(images):
            raise CaptionerError(f"{report.done} of {len(images)} images were extracted")

    @torch.inference_mode()
    def bare() -> None:
        for images in ready:
            backbone(images)

    with torch.inference_mode():
        backbone(ready[0])
    return compare(
        f"extraction over bare {network}, {workers} workers",
        "images/s",
        rate(len(images), ours),
        rate(len(images), bare),
        rounds=rounds,
        warm_up=False,
        target=TARGETS.get(network, TARGET),
    )


def backbone_of(network: str) -> Backbone:
    """``default``, or ``compact`` or a network of torchvision's, pooled, with random weights, so without a download."""
    if network == "default":
        return load_backbone("default")
    if network == "compact":
        return load_backbone("compact", state=CompactCNN().state_dict())
    from captioner.backbones.torchvision import classifier

    return load_backbone(f"torchvision:{network}@pool", state=classifier(network).state_dict())


def _ready(backbone: Backbone, images: list[Path], batch_size: int) -> list[torch.Tensor]:
    """The images as the network's input, normalized batches (N, 3, S, S)."""
    cut = (pixels(open_image(path), backbone.spec) for path in images)  # (S, S, 3) each
    return [normalize(torch.from_numpy(np.stack(batch)), backbone.spec) for batch in batches(cut, batch_size)]
