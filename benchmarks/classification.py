"""Classifying digits against a claim of ten seconds, and local response normalization against torch's.

Digits: a LeNet reads 10,000 images from IDX files, the size of MNIST's test set, and classifies them on a CPU; the
baseline is the ten seconds that a paper reports for this. Weights are random, which does not change the time.
Normalization: forward and backward over the maps of the first convolution of the CIFAR-10 table, (128, 64, 12, 12).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.measure import AT_MOST, Measurement, compare, rate, seconds
from captioner.data.labeled import LabeledImages
from captioner.data.readers.mnist import CLASSES, SIDE, read_idx
from captioner.data.records import ClassNames
from captioner.experiment import load_experiment
from captioner.models.cnn_lstm import LocalResponseNorm
from captioner.tasks.images.data import pixel_spec
from captioner.tasks.images.learner import ImageLearner, build_classifier, predict_logits

CLAIM = 10.0
"""Seconds for 10,000 digits."""


def measure(count: int = 10_000, rounds: int = 3) -> list[Measurement]:
    """Seconds for ``count`` digits over ten seconds."""
    config = load_experiment("mnist-lenet").config
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
    images = LabeledImages(pixels[..., None], np.zeros(count, np.int64), ())
    spec = pixel_spec(config.data, images)
    network = build_classifier(config, [spec], ClassNames(CLASSES))
    learner = ImageLearner(network, spec, config.data.channels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t10k-images-idx3-ubyte"
        header = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in pixels.shape)
        path.write_bytes(header + pixels.tobytes())

        def classify() -> None:
            predict_logits(learner, torch.from_numpy(read_idx(path, 3)[..., None]), config.data.crop).argmax(1)

        return [
            compare(
                f"{count:,} digits by LeNet over {CLAIM:.0f} s",
                "s",
                lambda: seconds(classify),
                lambda: CLAIM,
                rounds=rounds,
                target=1.0,
                direction=AT_MOST,
            )
        ]


def measure_normalization(batch_size: int = 128, rounds: int = 5) -> list[Measurement]:
    """Batches per second of ours over torch's local response normalization."""
    maps = torch.rand(batch_size, 64, 12, 12, requires_grad=True)

    def step(norm: nn.Module) -> Callable[[], None]:
        return lambda: norm(maps).sum().backward()

    theirs = nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)
    ours = rate(1, step(LocalResponseNorm(64)))
    return [compare("local response norm over torch's", "batches/s", ours, rate(1, step(theirs)), rounds=rounds)]
