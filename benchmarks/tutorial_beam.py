"""Our beam search, compared with that of a well-known tutorial, on the same LSTM, the default model's decoder.

The tutorial is sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning; CAPTIONER_BENCH_TUTORIAL names a folder with its
``caption.py``, and without it there is no row. Its search decodes one image at a time; ours gets the same images one at
a time, and in batches. Both sum log probabilities. Three parts are replaced so that it runs today: packages that read
and draw images, the division of integers, which gave integers in PyTorch before 1.5, and the model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.decoding import BATCH, BEAM_SIZE, decode, random_features
from benchmarks.measure import Measurement, compare, rate
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.errors import CaptionerError
from captioner.predictors import find_model
from captioner.text.vocabulary import END, START

FOLDER = "CAPTIONER_BENCH_TUTORIAL"
ONE, BATCHED = 1.0, 2.0
"""Targets, one image at a time and in batches."""
STUBS = ("matplotlib", "matplotlib.pyplot", "matplotlib.cm", "skimage", "skimage.transform", "scipy", "scipy.misc")
OLD, NEW = "top_k_words / vocab_size", "top_k_words // vocab_size"


def measure(model: str = "default", count: int = 32, rounds: int = 5) -> list[Measurement]:
    """Captions/s of our beam search over those of the tutorial's."""
    folder = os.environ.get(FOLDER)
    if not folder:
        print(f" {FOLDER} names no copy of the tutorial; skipped", file=sys.stderr)
        return []
    checkpoint = load_checkpoint(find_model(model))
    network = checkpoint.model
    features = random_features(network, count)
    theirs = tutorial_beam(Path(folder), checkpoint)

    def ours(size: int) -> Callable[[], float]:
        @torch.inference_mode()
        def work() -> None:
            for batch in torch.split(features, size):
                decode(network, network.start(batch), len(batch), checkpoint)

        return rate(count, work)

    slow = rate(count, lambda: [theirs(one) for one in features])
    name = f"beam {BEAM_SIZE} over the tutorial's on the same LSTM, "
    return [
        compare(f"{name}one image at a time", "captions/s", ours(1), slow, rounds=rounds, target=ONE),
        compare(f"{name}batches of {BATCH}", "captions/s", ours(BATCH), slow, rounds=rounds, target=BATCHED),
    ]


def tutorial_beam(folder: Path, checkpoint: Checkpoint) -> Callable[[Tensor], list[int]]:
    """A function from the features (D,) of an image to the words of its caption, by the tutorial's beam search."""
    try:
        source = (folder / "caption.py").read_text(encoding="utf-8")
    except OSError as error:
        raise CaptionerError(f"{FOLDER}: {folder} has no caption.py of the tutorial") from error
    module = ModuleType("tutorial")
    images = {"imread": lambda path: np.zeros((1, 1, 3)), "imresize": lambda image, size: image}
    stubs = {name: ModuleType(name) for name in STUBS}
    vars(stubs["scipy.misc"]).update(images)
    with _instead(stubs):
        exec(compile(source.replace(OLD, NEW), "caption.py", "exec"), vars(module))
    words = {f"w{number}": number for number in range(len(checkpoint.outputs))}
    del words[f"w{START}"], words[f"w{END}"]
    decoder = _Decoder(checkpoint.model)

    @torch.inference_mode()
    def search(features: Tensor) -> list[int]:
        decoder.features = features[None]
        found, _ = module.caption_image_beam_search(
            lambda image: torch.zeros(1, 1, 1, 1), decoder, "", words | {"<start>": START, "<end>": END}, BEAM_SIZE
        )
        return [word for word in found if word not in (START, END)]

    return search


@contextmanager
def _instead(stubs: Mapping[str, ModuleType]) -> Iterator[None]:
    """Import modules in place of others; other modules imported meanwhile stay."""
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _Decoder:
    """Our model with the interface of the tutorial's; h and c are the rows of the previous step's state."""

    def __init__(self, network: Any) -> None:
        self.network, self.features = network, torch.empty(0)
        self.embedding = lambda words: words.double()[..., None]  # (k, 1, 1): numbers of words, exact
        self.attention = lambda seen, rows: (torch.zeros(len(rows), 0), torch.ones(len(rows), 1))
        self.f_beta = lambda rows: torch.zeros(len(rows), 0)
        self.sigmoid = torch.sigmoid
        self.fc = lambda rows: self.log_probs

    def init_hidden_state(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        self.state = self.network.start(self.features)
        rows = torch.zeros(len(seen), dtype=torch.int64)
        return rows, rows

    def decode_step(self, inputs: Tensor, rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        tokens = inputs[:, 0].long()
        self.log_probs, self.state = self.network.step(tokens, self.network.select(self.state, rows[0]))
        following = torch.arange(len(tokens))
        return following, following
