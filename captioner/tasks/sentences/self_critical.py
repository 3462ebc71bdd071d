"""Self-critical training: the model samples captions and learns from their scores instead of from given captions.

Rennie et al. 2017 ("Self-critical sequence training for image captioning", CVPR): the gradient of the expected reward
is estimated from sampled captions, each weighted by its reward minus a baseline. The baseline here is the mean reward
of the other captions sampled for the same image (Luo 2020, "A better variant of self-critical sequence training"): it
needs no further decoding and, being independent of the caption, leaves the gradient unbiased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captioner.decoding.config import DecodingConfig
from captioner.decoding.sampling import sample
from captioner.metrics.base import Array, Metric
from captioner.metrics.cider import CiderD, DocumentFrequency
from captioner.metrics.corpus import ORDER, Corpus, Tokens
from captioner.text.vocabulary import END, PAD, SPECIALS, START

if TYPE_CHECKING:
    from captioner.tasks.sentences.learner import SentenceLearner

END_WORD = SPECIALS[END]  # no tokenizer makes it


class CaptionReward:
    """CIDEr-D or BLEU-4 against the references of training images, over which document frequencies are counted.

    The end counts as a word, in references and captions alike: without it "a man in a" earns nearly as much as
    "a man in a hat", and models learn to stop in the middle of a phrase.
    """

    def __init__(self, references: Mapping[int, Sequence[Tokens]], metric: str = "cider") -> None:
        """``references``: tokens of each image's captions by the image's row; ``metric``: cider or bleu4."""
        self._references = {row: [[*line, END_WORD] for line in lines] for row, lines in references.items()}
        if metric == "cider":
            self._metric: Metric = CiderD(DocumentFrequency(list(self._references.values())))
        else:
            from captioner.metrics.bleu import Bleu  # needs sacreBLEU, which captions by a checkpoint should not load

            self._metric = Bleu()
        self._by_share = metric != "cider"

    def __call__(self, rows: Sequence[int], captions: Sequence[Tokens]) -> list[float]:
        """The reward of each caption for the image of its row; complete captions end in ``END_WORD``.

        By BLEU-4, which is no mean over captions, it is what the caption adds to the score of all.
        """
        counted = self._metric.statistics(Corpus(captions, [self._references[row] for row in rows]))
        rewards: list[float] = (contributions(counted) if self._by_share else counted[:, 0]).tolist()
        return rewards


def contributions(counted: Array) -> Array:
    """What each of N captions adds to the BLEU-4 B of all, from 0 to 1, for the statistics (N, 10) of ``Bleu``: (N,).

    B (1 + N d log B / d w) for a caption of weight w = 1, whose mean is B. BLEU-4 of single captions is another score:
    it is 0 without four words in a row that match, and smoothed (Lin and Och 2004) it teaches sentences of four words.
    """
    sums = np.maximum(counted.sum(0), 1)  # (10,): where nothing matches, as if one did
    length, closest, correct, total = sums[0], sums[1], sums[2 : 2 + ORDER], sums[2 + ORDER :]
    slope = (counted[:, 2 : 2 + ORDER] / correct - counted[:, 2 + ORDER :] / total).mean(1)
    if length < closest:  # the logarithm of the brevity penalty is 1 - closest / length
        slope += (closest * counted[:, 0] / length - counted[:, 1]) / length
    bleu = np.exp(min(0, 1 - closest / length)) * (correct / total).prod() ** (1 / ORDER)
    return np.asarray(bleu * (1 + len(counted) * slope))


class Sampler:
    """Samples captions for the images of a batch, with their rewards."""

    def __init__(self, reward: CaptionReward, words: Sequence[str], num_samples: int, max_length: int) -> None:
        """``words`` are those of the vocabulary; captions have at most ``max_length`` tokens."""
        self.reward = reward
        self.words = words
        self.num_samples = num_samples
        self.max_length = max_length

    def __call__(
        self, learner: SentenceLearner, features: Tensor, rows: Sequence[int], seed: int
    ) -> tuple[list[list[list[int]]], Tensor]:
        """Token ids of ``num_samples`` captions for each of features (B, D), and their rewards (B, S).

        ``rows`` (B) are the images' rows. A pure function of the weights, the features and the seed.
        """
        captions = self.sample(learner, features, seed)
        repeated = [row for row in rows for _ in range(self.num_samples)]
        sentences = [[self.words[i] for i in caption] for some in captions for caption in some]
        return captions, torch.tensor(self.reward(repeated, sentences)).reshape(-1, self.num_samples)

    @torch.no_grad()
    def sample(self, learner: SentenceLearner, features: Tensor, seed: int) -> list[list[list[int]]]:
        """For each of features (B, D) the token ids of ``num_samples`` captions, with ``END`` where they are complete.

        Dropout is off: the captions are those of the model that will be used later.
        """
        model = learner.model
        config = DecodingConfig("sample", num_samples=self.num_samples, max_length=self.max_length, seed=seed)
        learner.eval()
        with torch.autocast(model.device.type, enabled=False):  # states are carried in float32
            state = model.start(features)
        found = sample(model, state, len(features), config, start=START, end=END)
        learner.train()
        # A caption of max_length tokens was cut and has no end.
        return [[[*h.ids, END][: self.max_length] for h in hypotheses] for hypotheses in found]


def advantages(rewards: Tensor) -> Tensor:
    """Rewards (B, S) minus the mean of the others in the same row, (B, S); they add up to 0 in every row."""
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def shift_targets(captions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T) for token ids of captions, with ``END`` where they have one; then ``PAD``."""
    targets = pad_sequence([torch.tensor(caption) for caption in captions], batch_first=True, padding_value=PAD)
    inputs = torch.cat([torch.full((len(targets), 1), START), targets[:, :-1]], 1)
    return inputs.masked_fill(inputs == END, PAD), targets
