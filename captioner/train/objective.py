"""The loss: masked cross-entropy under teacher forcing, as a sum over tokens that the caller divides."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def token_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum over tokens of the cross-entropy in nats, a scalar in float32.

    ``logits`` (N, V) are unnormalised and of any float type, ``targets`` (N,) word ids without padding.
    ``smoothing`` is the probability mass spread evenly over the vocabulary (Szegedy et al. 2016, section 7).
    It is a sum, not a mean, so that processes that hold different numbers of tokens can divide by the global count.
    """
    return functional.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=smoothing)
