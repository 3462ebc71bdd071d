"""Self-critical training: the model samples captions and learns from their scores instead of given captions.

Rennie et al. 2017 ("Self-critical sequence training for image captioning", CVPR): the gradient of the expected reward
is estimated from sampled captions, each weighted by its reward minus a baseline. The baseline here is the mean reward
of the other captions sampled for the same image (Luo 2020, "A better variant of self-critical sequence training"). It
needs no further decoding and, since it does not depend on the caption, leaves the gradient unbiased.
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

END_WORD = SPECIALS[END]  # no tokenizer gives this token


class CaptionReward:
    """CIDEr-D or BLEU-4 against the references of training images, which also give the document frequencies.

    The end counts as a word, in references and captions: without it "a man in a" scores nearly as high as "a man in a
    hat", and models learn to stop in the middle of a phrase.
    """

    def __init__(self, references: Mapping[int, Sequence[Tokens]], metric: str = "cider") -> None:
        """``references``: tokens of each image's captions by the image's row; ``metric``: cider or bleu4."""
        self._references = {row: [[*line, END_WORD] for line in lines] for row, lines in references.items()}
        if metric == "cider":
            self._metric: Metric = CiderD(DocumentFrequency(list(self._references.values())))
        else:
            from captioner.metrics.bleu import Bleu  # imports sacreBLEU, which captioning with a checkpoint should not

            self._metric = Bleu()
        self._by_share = metric != "cider"

    def __call__(self, rows: Sequence[int], captions: Sequence[Tokens]) -> list[float]:
        """The reward of each caption for the image of its row; complete captions end in ``END_WORD``.

        BLEU-4 is no mean over captions, so its reward is the caption's contribution to the score of all captions.
        """
        counted = self._metric.statistics(Corpus(captions, [self._references[row] for row in rows]))
        rewards: list[float] = (contributions(counted) if self._by_share else counted[:, 0]).tolist()
        return rewards


def contributions(counted: Array) -> Array:
    """What each of N captions contributes, (N,), to the BLEU-4 B (0 to 1) of all, from ``Bleu``'s statistics (N, 10).

    It is B (1 + N d log B / d w) for a caption of weight w = 1; the mean of all is B. BLEU-4 of single captions is
    another score: it is 0 without four matching words in a row and, smoothed (Lin and Och 2004), teaches sentences of
    four words.
    """
    sums = np.maximum(counted.sum(0), 1)  # (10,): at least 1, if nothing matches
    length, closest, correct, total = sums[0], sums[1], sums[2 : 2 + ORDER], sums[2 + ORDER :]
    slope = (counted[:, 2 : 2 + ORDER] / correct - counted[:, 2 + ORDER :] / total).mean(1)
    if length < closest:  # the log of the brevity penalty is 1 - closest / length
        slope += (closest * counted[:, 0] / length - counted[:, 1]) / length
    bleu = np.exp(min(0, 1 - closest / length)) * (correct / total).prod() ** (1 / ORDER)
    return np.asarray(bleu * (1 + len(counted) * slope))


class Sampler:
    """Samples captions for the images of a batch, and computes their rewards."""

    def __init__(self, reward: CaptionReward, words: Sequence[str], num_samples: int, max_length: int) -> None:
        """``words`` is the vocabulary; captions have at most ``max_length`` tokens."""
        self.reward = reward
        self.words = words
        self.num_samples = num_samples
        self.max_length = max_length

    def __call__(
        self, learner: SentenceLearner, features: Tensor, rows: Sequence[int], seed: int
    ) -> tuple[list[list[list[int]]], Tensor]:
        """Token ids of ``num_samples`` captions for each row of features (B, D), and their rewards (B, S).

        ``rows`` (B) are the images' rows. A pure function of the weights, the features and the seed.
        """
        captions = self.sample(learner, features, seed)
        repeated = [row for row in rows for _ in range(self.num_samples)]
        sentences = [[self.words[i] for i in caption] for some in captions for caption in some]
        return captions, torch.tensor(self.reward(repeated, sentences)).reshape(-1, self.num_samples)

    @torch.no_grad()
    def sample(self, learner: SentenceLearner, features: Tensor, seed: int) -> list[list[list[int]]]:
        """For each row of features (B, D), token ids of ``num_samples`` captions, with ``END`` if they are complete.

        Dropout is off, so that the captions are those of the model as it will be used.
        """
        model = learner.model
        config = DecodingConfig("sample", num_samples=self.num_samples, max_length=self.max_length, seed=seed)
        learner.eval()
        with torch.autocast(model.device.type, enabled=False):  # states are kept in float32
            state = model.start(features)
        found = sample(model, state, len(features), config, start=START, end=END)
        learner.train()
        # A caption of max_length tokens was cut and has no end.
        return [[[*h.ids, END][: self.max_length] for h in hypotheses] for hypotheses in found]


def advantages(rewards: Tensor) -> Tensor:
    """Rewards (B, S) minus the mean of the others in the same row, (B, S); each row sums to 0."""
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def shift_targets(captions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T) for token ids of captions, with ``END`` if they have one, then ``PAD``."""
    targets = pad_sequence([torch.tensor(caption) for caption in captions], batch_first=True, padding_value=PAD)
    inputs = torch.cat([torch.full((len(targets), 1), START), targets[:, :-1]], 1)
    return inputs.masked_fill(inputs == END, PAD), targets
