"""Training, compared with a bare stack of the same recurrent layers.

Ours: ``captioner.train.trainer.Trainer`` on a shipped configuration, over an epoch of captions: captions sorted into
batches, features looked up, normalized and projected, words embedded, dropout, residual paths, the loss, gradients
clipped, AdamW, the moving average of the weights. ``measure``: flickr8k-4f, captions as long as Flickr8k's with 2,600
words; ``measure_clip_captioner``: tacos-c, sentences as long as TACoS' with 1,017 words, 179 probabilities of labels.
Baseline: the same ``nn.LSTM`` layers, the output layer, the same loss, backward and AdamW over these weights, on random
inputs that are already in memory: word vectors, projected images, which rows are real, and their targets.
Both: the same batches, precision (bfloat16 autocast) and softmax over real words only; real words are counted.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import Measurement, compare, rate
from captioner.backbones.spec import BackboneSpec
from captioner.experiment import Experiment, load_experiment
from captioner.features.writer import FeatureWriter
from captioner.tasks.sentences.data import SentenceBatch
from captioner.text.vocabulary import PAD, SPECIALS
from captioner.train.distributed import World
from captioner.train.optim import make_optimizer
from captioner.train.trainer import Trainer

TARGET = 0.85
CAPTIONS_EACH = 5  # captions per image
FLICKR8K = (10.8, 3.7)  # words in a caption: mean, deviation
TACOS = (8.6, 5.1)


class Ready(NamedTuple):
    """The inputs of the bare stack for one batch."""

    words: Tensor
    """Word vectors (T, B, E)."""
    image: Tensor
    """Projected images (T, B, I)."""
    real: Tensor
    """Indices (N,) of the rows of the flattened output (T * B, H) that have a target."""
    targets: Tensor
    """Targets (N,)."""


class Bare(nn.Module):
    """A run's recurrent layers and its output layer, without anything else."""

    def __init__(self, run: Trainer) -> None:
        super().__init__()
        stack, self.precision = run.learner.model.stack, run.precision
        self.wiring, self.smoothing = stack.wiring, run.experiment.config.loss.label_smoothing
        self.layers = nn.ModuleList(type(layer)(layer.input_size, layer.hidden_size) for layer in stack.layers)
        self.lm_head = nn.Linear(stack.hidden, len(run.data.outputs))
        self.optimizer = make_optimizer(run.config, [(self, run.config.lr)])

    def forward(self, batch: Ready) -> Tensor:
        """The mean loss of a batch, a scalar."""
        parts = {"word": batch.words, "image": batch.image}
        for layer, inputs in zip(self.layers, self.wiring, strict=True):
            seen = [parts[name] for name in inputs]
            parts["below"], _ = layer(seen[0] if len(seen) == 1 else torch.cat(seen, -1))
        hidden = parts["below"].flatten(0, 1)  # (T, B, H) -> (T * B, H)
        logits = self.lm_head(hidden.index_select(0, batch.real))
        return functional.cross_entropy(logits.float(), batch.targets, label_smoothing=self.smoothing)

    def epoch(self, batches: Sequence[Ready]) -> None:
        """Do one optimizer step for each batch."""
        for batch in batches:
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
                loss = self(batch)
            loss.backward()
            self.optimizer.step()


def measure(
    steps: int = 12,
    rounds: int = 5,
    words: int = 2600,
    feature_size: int = 2048,
    settings: Sequence[str] = (),
    config: str = "flickr8k-4f",
    length: tuple[float, float] = FLICKR8K,
) -> list[Measurement]:
    """Tokens per second of training over those of the bare stack; ``settings`` change the configuration."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        start = load_experiment(config, settings)
        experiment = make_experiment(start, Path(folder), steps, rounds + 1, words, feature_size, length)
        run = Trainer(experiment, World(), torch.device("cpu"), resume=False, progress=False)
        run.learner.train()
        bare, model = Bare(run), experiment.config.model
        epoch = list(run.data.batches(0))
        ready = [_ready(batch, model.embedding_dim, model.image_dim or feature_size) for batch in epoch]
        tokens = sum(batch.tokens for batch in epoch)

        def ours() -> None:
            for batch in run.data.batches(0):
                run.optimize(batch)
                run.position.step += 1

        name = f"training over bare {model.wiring} of {model.hidden_dim}, {run.precision}"
        theirs = rate(tokens, lambda: bare.epoch(ready))
        return [compare(name, "tokens/s", rate(tokens, ours), theirs, rounds=rounds, target=TARGET)]


def measure_clip_captioner(steps: int = 24, settings: Sequence[str] = ()) -> list[Measurement]:
    """The same for a clip captioner."""
    given = ["data.gold_share=[0, 0]", *settings]  # features, not labels, are what is read
    return measure(steps, words=1017, feature_size=179, settings=given, config="tacos-c", length=TACOS)


def make_experiment(
    experiment: Experiment,
    folder: Path,
    steps: int,
    epochs: int,
    words: int,
    feature_size: int,
    length: tuple[float, float],
) -> Experiment:
    """``experiment`` on synthetic data in ``folder`` that give ``steps`` batches per epoch."""
    captions = steps * experiment.train.batch_size
    generator = np.random.default_rng(0)
    sentences = make_sentences(captions, words - len(SPECIALS), generator, length)
    images = []
    for number in range(-(-captions // CAPTIONS_EACH)):
        own = sentences[number * CAPTIONS_EACH : (number + 1) * CAPTIONS_EACH]
        images.append({"filename": f"{number}.jpg", "split": "train", "sentences": [{"raw": one} for one in own]})
    images.append({"filename": "dev.jpg", "split": "val", "sentences": [{"raw": sentences[0]}]})
    (folder / "dataset.json").write_text(json.dumps({"images": images}))
    spec = BackboneSpec("compact", size=192, dimension=feature_size)
    with FeatureWriter(folder / "features.h5", spec, "random") as writer:
        for image in images:
            writer.add(str(image["filename"]), generator.random(feature_size, np.float32))
    features = (str(folder / "features.h5"),)
    config, root = experiment.config, str(folder / "dataset.json")
    data = dataclasses.replace(config.data, format="karpathy", root=root, features=features, min_count=1)
    train = dataclasses.replace(experiment.train, epochs=epochs, device="cpu")
    return dataclasses.replace(
        experiment, output=str(folder / "run"), config=dataclasses.replace(config, data=data), train=train
    )


def make_sentences(
    count: int, words: int, generator: np.random.Generator, length: tuple[float, float] = FLICKR8K
) -> list[str]:
    """``count`` sentences of ``length``; words follow Zipf's law, and each of ``words`` occurs at least once."""
    lengths = np.clip(np.rint(generator.normal(*length, count)), 3, 2 * length[0]).astype(int)
    odds = 1 / np.arange(1, words + 1)
    drawn = generator.choice(words, max(lengths.sum() - words, 0), p=odds / odds.sum())
    every = generator.permutation(np.concatenate([np.arange(words), drawn]))
    pieces = np.split(every, lengths.cumsum()[:-1])
    return [" ".join(f"w{number}" for number in piece) for piece in pieces]


def _ready(batch: SentenceBatch, embedding: int, image: int) -> Ready:
    count, length = batch.targets.shape
    targets = batch.targets.t().flatten()  # (B, T) -> (T * B,)
    real = (targets != PAD).nonzero().flatten()  # (N, 1) -> (N,)
    shown = torch.randn(count, image).expand(length, -1, -1).contiguous()  # (B, I) -> (T, B, I)
    return Ready(torch.randn(length, count, embedding), shown, real, targets[real])
