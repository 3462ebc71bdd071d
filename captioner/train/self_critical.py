"""Self-critical training: the model draws captions and learns from their CIDEr-D instead of from given words.

Rennie et al. 2017 ("Self-critical sequence training for image captioning", CVPR): the gradient of the expected reward
is estimated from drawn captions, each weighed by what it earns more than a baseline. The baseline here is the mean
reward of the other captions drawn for the same image (Luo 2020, "A better variant of self-critical sequence
training"): it needs no further decoding and, independent of the caption that it is held against, leaves the gradient
unbiased.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captioner.decoding import How
from captioner.decoding.sampling import draw
from captioner.experiment import Experiment
from captioner.metrics.cider import CiderD, DocumentFrequency
from captioner.metrics.corpus import Corpus, Tokens
from captioner.text.vocabulary import END, PAD, SPECIALS, START
from captioner.train.distributed import World
from captioner.train.material import Material, Step
from captioner.train.network import Network

END_WORD = SPECIALS[END]  # no tokenizer makes it


class CaptionReward:
    """CIDEr-D against the references of training images, among which n-grams are counted.

    The end counts as a word, in references and captions alike: without it "a man in a" earns nearly as much as
    "a man in a hat", and models learn to stop in mid-phrase.
    """

    def __init__(self, references: Mapping[int, Sequence[Tokens]]) -> None:
        """``references``: tokens of each image's captions by the image's number."""
        self._references = {row: [[*line, END_WORD] for line in lines] for row, lines in references.items()}
        self._metric = CiderD(DocumentFrequency(list(self._references.values())))

    def __call__(self, rows: Sequence[int], captions: Sequence[Tokens]) -> list[float]:
        """The reward of each caption for the image of its row; they end in ``END_WORD`` if they are complete."""
        counted = self._metric.statistics(Corpus(captions, [self._references[row] for row in rows]))
        rewards: list[float] = counted[:, 0].tolist()
        return rewards


class SelfCritical:
    """Turns a step's images into captions drawn from ``network``, with what each is worth."""

    def __init__(
        self, experiment: Experiment, material: Material, network: Network, processes: World, precision: str
    ) -> None:
        self.samples = experiment.train.samples
        self.precision = precision
        self.max_length = experiment.decoding.max_length
        self.words = material.vocabulary.words
        self.reward = CaptionReward(material.train_references)
        self.network, self.processes = network, processes

    def draw(self, step: Step, seed: int) -> Step:
        """The step with ``samples`` captions for each of its images, side by side, as targets.

        A pure function of the weights, the images and the ``seed``. Every process must call it: tokens, rewards and
        captions are those of all.
        """
        device = self.network.decoder.device
        drawn = self._draw(step.images, seed) if step.images is not None and len(step.rows) else []
        rows = [row for row in step.rows.tolist() for _ in range(self.samples)]
        captions = [[self.words[i] for i in caption] for some in drawn for caption in some]
        table = torch.tensor(self.reward(rows, captions) if drawn else []).reshape(-1, self.samples)  # (B, S)
        inputs, targets = teach([caption for some in drawn for caption in some])
        sums = torch.tensor([(targets != PAD).sum(), table.sum(), table.numel()], dtype=torch.float64, device=device)
        tokens, reward, count = self.processes.sum(sums).tolist()
        return dataclasses.replace(
            step,
            rows=step.rows.repeat_interleave(self.samples),
            images=None if step.images is None else step.images.repeat_interleave(self.samples, 0),
            inputs=inputs,
            targets=targets,
            tokens=int(tokens),
            advantages=advantages(table).flatten().to(device),  # (B, S) -> (B * S,)
            reward=reward,
            captions=int(count),
        )

    @torch.no_grad()
    def _draw(self, features: Tensor, seed: int) -> list[list[list[int]]]:
        """For each of the features (B, D) the ids of ``samples`` captions, with ``END`` where they are complete.

        Without dropout: the captions are those of the model that is to describe images later.
        """
        decoder = self.network.decoder
        how = How(START, END, max_length=self.max_length, number=self.samples, seed=seed)
        self.network.eval()
        state = decoder.start(features)  # before autocast, so that states are carried in float32
        with torch.autocast(decoder.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            found = draw(decoder, state, len(features), how)
        self.network.train()
        # What has max_length words was cut and has no end.
        return [[[*h.ids, END][: self.max_length] for h in hypotheses] for hypotheses in found]


def advantages(rewards: Tensor) -> Tensor:
    """Rewards (B, S) minus the mean of the others in the same row, (B, S); they add up to 0 in every row."""
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def teach(captions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T) for ids of captions, with ``END`` where they have one; ``PAD`` behind."""
    if not captions:
        return torch.empty(0, 1, dtype=torch.int64), torch.empty(0, 1, dtype=torch.int64)
    targets = pad_sequence([torch.tensor(caption) for caption in captions], batch_first=True, padding_value=PAD)
    inputs = torch.cat([torch.full((len(targets), 1), START), targets[:, :-1]], 1)
    return inputs.masked_fill(inputs == END, PAD), targets
