"""Trained models whose expectations a run learns besides people's words: knowledge distillation, word by word."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captioner.checkpoint import load_checkpoint
from captioner.errors import ConfigError
from captioner.models.lrcn import ImageCaptioner
from captioner.text.vocabulary import Vocabulary

Choose = Callable[[Tensor], Tensor]


class Teachers:
    """An ensemble of trained captioners that see the same images and words as the model that learns.

    They may see the images through other networks, better ones for example, than the model will have.
    Hinton et al. 2015 at temperature 1: the mean of the teachers' probabilities is a target that knows which other
    words would have done. They are frozen, without dropout, and no part of the network that is trained.
    """

    def __init__(self, models: Sequence[ImageCaptioner]) -> None:
        self.models = [model.eval().requires_grad_(False) for model in models]

    @torch.no_grad()
    def expect(self, features: Tensor | None, inputs: Tensor, choose: Choose) -> Tensor:
        """Mean probabilities (tokens, V) of the next words, in float32.

        ``features`` (B, D) and ``inputs`` (B, T) as for the model; ``choose`` takes outputs (B, T, H) to those of the
        real tokens (tokens, H).
        """
        total = torch.zeros(())
        for model in self.models:
            logits = model.project(choose(model.hidden(features, inputs)))
            total = total.to(logits.device) + logits.float().softmax(-1)
        return total / len(self.models)


def read_teachers(paths: Sequence[str], vocabulary: Vocabulary, feature_size: int, device: torch.device) -> Teachers:
    """The checkpoints ``paths``; ``ConfigError`` where one has other words or features than the run."""
    models = []
    for path in paths:
        checkpoint = load_checkpoint(path)
        theirs, ours = checkpoint.vocabulary.to_list(), vocabulary.to_list()
        if theirs != ours:
            raise ConfigError(
                f"train.teachers: {path} has {len(theirs)} words, the run {len(ours)}: they must be the same in one "
                f"order; set data.vocabulary_from={path}"
            )
        if checkpoint.model.feature_size != feature_size:
            raise ConfigError(
                f"train.teachers: {path} takes {checkpoint.model.feature_size} numbers in a feature, it is given "
                f"{feature_size}; name the feature stores that it was trained on in train.teacher_features"
            )
        models.append(checkpoint.model.to(device))
    return Teachers(models)
