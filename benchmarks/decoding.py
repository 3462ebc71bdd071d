"""Beam search, compared with greedy decoding, and with beam search that runs the whole prefix again at each step.

All decode random features with the mean and deviation of the default model's training features, without the CNN, so
that captions have about the usual length.

* greedy: ``captioner.decoding.greedy`` at the same batch size.
* naive: ``tests/oracles/naive_beam.py``, plain loops over one image at a time.
* re-running: our batched beam search over a decoder whose state is the prefix; only the recurrent state differs. It has
  no target; it shows how much of the naive beam's time is spent on running prefixes again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Measurement, compare, rate
from captioner.arrays import Array
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.decoding import Decoder, DecodingConfig
from captioner.decoding.beam import beam_search
from captioner.decoding.greedy import greedy
from captioner.models.lrcn import LRCN
from captioner.predictors import find_model
from captioner.text.vocabulary import END, NEVER, START
from tests.oracles.naive_beam import naive_beam_search, run_again

BEAM_SIZE = 5
OVER_GREEDY, OVER_NAIVE = 0.25, 5.0  # targets
BATCH = 16  # as in the command


class Rerunning:
    """A model as a ``Decoder`` whose state is the features (N, D) and the words so far (N, T)."""

    def __init__(self, model: LRCN) -> None:
        self.model = model

    def start(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features, torch.empty(len(features), 0, dtype=torch.int64)

    def step(self, tokens: Array, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        words = torch.cat([state[1], torch.as_tensor(tokens)[:, None]], 1)  # (N, T)
        last = self.model.hidden(state[0], words)[:, -1]  # (N, T, H) -> (N, H)
        log_probs = self.model.project(last).log_softmax(-1)
        log_probs[:, NEVER] = -torch.inf
        return log_probs, (state[0], words)

    def select(self, state: tuple[Tensor, Tensor], rows: Array) -> tuple[Tensor, Tensor]:
        return state[0][rows], state[1][rows]


def measure(
    model: str = "default", batch_size: int = BATCH, count: int = 128, few: int = 16, rounds: int = 5
) -> list[Measurement]:
    """Captions per second of beam search over those of the others, for ``count`` images; slow ones get ``few``."""
    checkpoint = load_checkpoint(find_model(model))
    network = checkpoint.model
    features = random_features(network, count)

    def beam(decoder: Any, images: Tensor) -> Callable[[], float]:
        return _captions(
            images, batch_size, lambda batch: decode(decoder, decoder.start(batch), len(batch), checkpoint)
        )

    max_length = checkpoint.config.decoding.max_length
    config = DecodingConfig("greedy", max_length=max_length)

    def greedily(batch: Tensor) -> None:
        greedy(network, network.start(batch), len(batch), config, start=START, end=END)

    def naive(image: Tensor) -> None:
        naive_beam_search(
            run_again(network, image[0]), start=START, end=END, beam_size=BEAM_SIZE, max_length=max_length
        )

    ours, rest = beam(network, features), features[:few]
    name = f"beam {BEAM_SIZE} over "
    quick = _captions(features, batch_size, greedily)
    slow, again = _captions(rest, 1, naive), beam(Rerunning(network), rest)
    unit = "captions/s"
    return [
        compare(f"{name}greedy, batches of {batch_size}", unit, ours, quick, rounds=rounds, target=OVER_GREEDY),
        compare(f"{name}naive beam", unit, beam(network, rest), slow, rounds=min(rounds, 3), target=OVER_NAIVE),
        compare(f"{name}re-running beam", unit, beam(network, rest), again, rounds=min(rounds, 3)),
    ]


def decode(decoder: Decoder, state: Any, count: int, checkpoint: Checkpoint) -> list[Any]:
    """Our beam search with the checkpoint's limits, by log probability without length normalization."""
    config = DecodingConfig(beam_size=BEAM_SIZE, max_length=checkpoint.config.decoding.max_length)
    return beam_search(decoder, state, count, config, start=START, end=END)


def random_features(model: LRCN, count: int) -> Tensor:
    """Features (count, D) with the mean and deviation of the model's training features."""
    noise = torch.randn(count, model.feature_size, generator=torch.Generator().manual_seed(0))
    return model.feature_mean + model.feature_std * noise


def _captions(features: Tensor, batch_size: int, decode: Callable[[Tensor], object]) -> Callable[[], float]:
    """A function that decodes all ``features`` batch by batch and returns captions per second."""

    @torch.inference_mode()
    def work() -> None:
        for batch in torch.split(features, batch_size):
            decode(batch)

    return rate(len(features), work)
