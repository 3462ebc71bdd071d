"""Losses of sentences, as sums over the tokens that are not padding; the caller divides them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from captioner.text.vocabulary import NEVER


def token_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum over tokens of the cross-entropy in nats, a scalar in float32.

    ``logits`` (N, V) are unnormalized and of any float type, ``targets`` (N,) word ids without padding.
    ``smoothing`` is the probability mass spread evenly over the vocabulary (Szegedy et al. 2016, section 7).
    It is a sum and not a mean, so that processes with different numbers of tokens can divide by the global count.
    """
    return functional.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=smoothing)


def distillation_loss(logits: Tensor, probs: Tensor) -> Tensor:
    """Sum over tokens of the cross-entropy with the teachers' ``probs`` (N, V), a scalar in float32.

    ``logits`` (N, V) as for ``token_loss``. Hinton et al. 2015, "Distilling the knowledge in a neural network".
    """
    return functional.cross_entropy(logits.float(), probs, reduction="sum")


def policy_loss(logits: Tensor, targets: Tensor, advantages: Tensor) -> Tensor:
    """Minus the sum over tokens of advantage times log probability (REINFORCE, Williams 1992), a scalar in float32.

    ``logits`` (N, V) and ``targets`` (N,) as for ``token_loss``; ``advantages`` (N,) are those of the sampled captions
    to which the targets belong. Probabilities are normalized over the tokens that can be sampled, as in sampling;
    otherwise the expectation would not be the gradient of the expected reward.
    """
    forbidden = torch.tensor(NEVER, device=logits.device)
    losses = functional.cross_entropy(logits.float().index_fill(1, forbidden, -torch.inf), targets, reduction="none")
    return torch.dot(losses, advantages)
