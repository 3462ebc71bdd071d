"""The decoder, and the CNN before it when that is trained too, as one module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from captioner.backbones import Backbone
from captioner.models.captioner import ImageCaptioner
from captioner.text.vocab import PAD
from captioner.train.objective import policy_loss, token_loss


class Network(nn.Module):
    """Pictures (features, or prepared pictures when there is a ``backbone``) and words to a loss."""

    def __init__(self, decoder: ImageCaptioner, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        self.backbone = backbone

    def train(self, mode: bool = True) -> Network:
        """Training mode, save for the CNN: small batches that repeat pictures would spoil BatchNorm's statistics."""
        super().train(mode)
        if self.backbone is not None:
            self.backbone.eval()
        return self

    def features(self, pictures: Tensor | None) -> Tensor | None:
        """Pictures (B, 3, S, S) through the CNN to features (B, D); features (B, D) and None stay as they are."""
        if pictures is None or self.backbone is None:
            return pictures
        features: Tensor = self.backbone(pictures)
        return features

    def forward(
        self,
        pictures: Tensor | None,
        inputs: Tensor,
        targets: Tensor,
        smoothing: float,
        advantages: Tensor | None = None,
    ) -> Tensor:
        """The summed loss in nats over the real ``targets`` (B, T); ``inputs`` (B, T) are the words before them.

        With ``advantages`` (B,) the targets are drawn captions and the loss is ``policy_loss``, without smoothing.
        """
        hidden = self.decoder.hidden(self.features(pictures), inputs)  # (B, T, H), in memory (T, B, H)
        row, step = (targets != PAD).nonzero(as_tuple=True)  # (tokens,) each
        # hidden[row, step] with a gradient that is not scattered entry by entry: (T * B, H) -> (tokens, H)
        real = hidden.transpose(0, 1).flatten(0, 1).index_select(0, step * len(targets) + row)
        logits, words = self.decoder.project(real), targets[row, step]  # (tokens, V), (tokens,)
        if advantages is None:
            return token_loss(logits, words, smoothing)
        return policy_loss(logits, words, advantages[row])


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
