"""Knowledge distillation: a run also learns from the next-token distributions of trained models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from captioner.checkpoint import load_checkpoint
from captioner.errors import ConfigError
from captioner.models.lrcn import LRCN
from captioner.text.vocabulary import Vocabulary

Choose = Callable[[Tensor], Tensor]
"""Selects from outputs (B, T, H) those of the real tokens, (tokens, H)."""


class Teachers:
    """An ensemble of trained sentence decoders (Hinton et al. 2015, at temperature 1).

    They read the same sentences as the student, and each the same features or others. They are frozen, without dropout,
    and not part of the learner's parameters.
    """

    def __init__(self, models: Sequence[LRCN]) -> None:
        self.models = [model.eval().requires_grad_(False) for model in models]

    @torch.no_grad()
    def predict_probs(self, features: Sequence[Tensor], inputs: Tensor, choose: Choose) -> Tensor:
        """Mean probabilities (tokens, V) of the next words, float32, for inputs (B, T).

        Each teacher reads the first of ``features`` (B, D) that has its size.
        """
        total = torch.zeros(())
        for model in self.models:
            own = next(one for one in features if one.shape[1] == model.feature_size)
            logits = model.project(choose(model.hidden(own, inputs)))
            total = total.to(logits.device) + logits.float().softmax(-1)
        return total / len(self.models)


def load_teachers(
    paths: Sequence[str], vocabulary: Vocabulary, sizes: Collection[int], device: torch.device
) -> Teachers:
    """Load the checkpoints ``paths``; raises ``ConfigError`` if one has other words or features of other ``sizes``."""
    models = []
    for path in paths:
        checkpoint = load_checkpoint(path)
        theirs, ours = checkpoint.outputs.to_list(), vocabulary.to_list()
        if theirs != ours:
            raise ConfigError(
                f"loss.teachers: {path} has {len(theirs)} words, the run {len(ours)}: set data.vocabulary_from={path}"
            )
        if checkpoint.model.feature_size not in sizes:
            given = " or ".join(map(str, sorted(sizes)))
            raise ConfigError(
                f"loss.teachers: {path} takes {checkpoint.model.feature_size} numbers in a feature, it is given "
                f"{given}; name the feature stores that it was trained on in loss.teacher_features"
            )
        models.append(checkpoint.model.to(device))
    return Teachers(models)
