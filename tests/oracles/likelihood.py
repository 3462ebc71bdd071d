"""log p(caption | image) of a pair by the whole model, one pair at a time; retrieval keys and ranks in plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from captioner.models.lrcn import LRCN
from captioner.text.vocabulary import END, START


@torch.no_grad()
def log_likelihood(model: LRCN, feature: Tensor, caption: Sequence[int]) -> float:
    """Feature (D,) and word ids: the sum over words and end of the log softmax of ``forward``, in nats."""
    logits = model(feature[None], torch.tensor([[START, *caption]]))[0].double()  # (T, V)
    log_probs = logits.log_softmax(-1)
    return sum(float(log_probs[place, word]) for place, word in enumerate([*caption, END]))


def normalized(log_probs: Sequence[Sequence[float]]) -> list[list[float]]:
    """log p(c|i) - log of the mean over images i of p(c|i), from rows of images."""
    means = [math.fsum(math.exp(row[c]) for row in log_probs) / len(log_probs) for c in range(len(log_probs[0]))]
    return [[value - math.log(mean) for value, mean in zip(row, means, strict=True)] for row in log_probs]


def rank(scores: Sequence[float], right: Sequence[bool]) -> int:
    """Place of the best right answer when whatever equals it and is wrong stands before it."""
    best = max(score for score, good in zip(scores, right, strict=True) if good)
    return 1 + sum(not good and score >= best for score, good in zip(scores, right, strict=True))
