"""The decoder, and the CNN before it when that is trained too, as one module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from captioner.backbones import Backbone
from captioner.models.lrcn import ImageCaptioner
from captioner.text.vocabulary import PAD
from captioner.train.objective import imitation_loss, policy_loss, token_loss
from captioner.train.teachers import Teachers


class Network(nn.Module):
    """Images (features, or prepared images when there is a ``backbone``) and words to a loss.

    With ``teachers`` (no part of its parameters) their expectations make up the share ``weight`` of the loss.
    """

    def __init__(
        self,
        decoder: ImageCaptioner,
        backbone: Backbone | None = None,
        teachers: Teachers | None = None,
        weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.backbone = backbone
        self.teachers = teachers
        self.weight = weight

    def train(self, mode: bool = True) -> Network:
        """Training mode, save for the CNN: small batches that repeat images would spoil BatchNorm's statistics."""
        super().train(mode)
        if self.backbone is not None:
            self.backbone.eval()
        return self

    def features(self, images: Tensor | None) -> Tensor | None:
        """Images (B, 3, S, S) through the CNN to features (B, D); with no CNN the first D of (B, D or more)."""
        if images is None:
            return None
        if self.backbone is None:
            return images[:, : self.decoder.feature_size]
        features: Tensor = self.backbone(images)
        return features

    def forward(
        self,
        images: Tensor | None,
        inputs: Tensor,
        targets: Tensor,
        smoothing: float,
        advantages: Tensor | None = None,
    ) -> Tensor:
        """The summed loss in nats over the real ``targets`` (B, T); ``inputs`` (B, T) are the words before them.

        With ``advantages`` (B,) the targets are drawn captions and the loss is ``policy_loss``, without smoothing.
        """
        features = self.features(images)
        row, step = (targets != PAD).nonzero(as_tuple=True)  # (tokens,) each

        def real(hidden: Tensor) -> Tensor:
            # hidden[row, step] with a gradient that is not scattered entry by entry; hidden (B, T, H) is (T, B, H) in
            # memory: (T * B, H) -> (tokens, H)
            return hidden.transpose(0, 1).flatten(0, 1).index_select(0, step * len(targets) + row)

        logits = self.decoder.project(real(self.decoder.hidden(features, inputs)))  # (tokens, V)
        words = targets[row, step]  # (tokens,)
        if advantages is not None:
            return policy_loss(logits, words, advantages[row])
        loss = token_loss(logits, words, smoothing)
        if self.teachers is None:
            return loss
        assert features is not None and images is not None
        behind = images[:, features.shape[1] :]  # where the teachers have features of their own
        expected = self.teachers.expect(behind if behind.shape[1] else features, inputs, real)
        return (1 - self.weight) * loss + self.weight * imitation_loss(logits, expected)


class Average:
    """Exponential moving average of a network's parameters (Polyak & Juditsky 1992); decay 0 keeps none."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = [p.data for p in network.parameters() if p.requires_grad]
        self.values = [p.clone() for p in self.live] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` (from 1); a young average forgets faster, so that it leaves the start."""
        if self.decay:
            decay = min(self.decay, step / (step + 9))
            torch._foreach_lerp_(self.values, self.live, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the average inside the block, and its own weights again behind it."""
        if not self.decay:
            yield
            return
        own = [p.clone() for p in self.live]
        torch._foreach_copy_(self.live, self.values)
        try:
            yield
        finally:
            torch._foreach_copy_(self.live, own)
