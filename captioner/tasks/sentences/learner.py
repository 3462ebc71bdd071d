"""The learner of the sentence tasks, and the loss of one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from captioner.backbones.backbone import Backbone
from captioner.models.lrcn import LRCN
from captioner.tasks.base import Learner, StepLoss
from captioner.tasks.sentences.data import SentenceBatch
from captioner.tasks.sentences.losses import distillation_loss, policy_loss, token_loss
from captioner.tasks.sentences.self_critical import Sampler, advantages, shift_targets
from captioner.tasks.sentences.teachers import Teachers
from captioner.text.vocabulary import PAD


class SentenceLearner(Learner):
    """A sentence decoder, with its backbone if that is fine-tuned, and the other parts that its loss needs.

    ``teachers`` and ``sampler`` are not among its parameters.
    """

    model: LRCN

    def __init__(
        self,
        model: LRCN,
        backbone: Backbone | None = None,
        backbone_lr: float = 0.0,
        *,
        label_smoothing: float = 0.0,
        teachers: Teachers | None = None,
        teacher_weight: float = 0.0,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(model, backbone, backbone_lr)
        self.label_smoothing = label_smoothing
        self.teachers = teachers
        self.teacher_weight = teacher_weight
        self.sampler = sampler

    def features(self, images: Mapping[str, Tensor]) -> Tensor | None:
        """``images["input"]``, prepared images (B, 3, S, S) or features (B, D), as features; None without images."""
        if "input" not in images:
            return None
        if self.backbone is None:
            return images["input"]
        features: Tensor = self.backbone(images["input"])
        return features

    def forward(self, images: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        """The summed loss in nats over the ``targets`` (B, T) that are not padding; ``inputs`` (B, T) precede them."""
        features = self.features(images)
        logits, words, chosen = self._logits(features, inputs, targets)
        loss = token_loss(logits, words, self.label_smoothing)
        if self.teachers is None:
            return loss
        assert features is not None
        theirs = [images["teacher"], features] if "teacher" in images else [features]
        expected = self.teachers.predict_probs(theirs, inputs, chosen)
        return (1 - self.teacher_weight) * loss + self.teacher_weight * distillation_loss(logits, expected)

    def sampled_loss(self, features: Tensor, captions: Sequence[Sequence[int]], worth: Tensor) -> Tensor:
        """``policy_loss`` of sampled captions; the i-th belongs to row i of features (B, D) and has advantage
        ``worth[i]``."""
        inputs, targets = (part.to(features.device) for part in shift_targets(captions))
        logits, words, chosen = self._logits(features, inputs, targets)
        return policy_loss(logits, words, worth[chosen.row])

    def _logits(self, features: Tensor | None, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Chosen]:
        """Logits (tokens, V) and target ids (tokens,) without padding, and the function that selects them."""
        chosen = Chosen(targets)
        logits = self.model.project(chosen(self.model.hidden(features, inputs)))
        return logits, targets[chosen.row, chosen.step], chosen


class Chosen:
    """Selects from outputs (B, T, H) those at real targets, (tokens, H)."""

    def __init__(self, targets: Tensor) -> None:
        self.size = len(targets)
        self.row, self.step = (targets != PAD).nonzero(as_tuple=True)  # (tokens,) each

    def __call__(self, hidden: Tensor) -> Tensor:
        # hidden[row, step], but without a gradient scattered entry by entry; hidden (B, T, H) is (T, B, H) in
        # memory: (T * B, H) -> (tokens, H)
        return hidden.transpose(0, 1).flatten(0, 1).index_select(0, self.step * self.size + self.row)


def sentence_loss(learner: SentenceLearner, batch: SentenceBatch) -> StepLoss:
    """Cross-entropy over the batch's tokens or, with a sampler, the policy loss of sampled captions."""
    if learner.sampler is None:
        return StepLoss(learner(batch.images, batch.inputs, batch.targets), batch.tokens)
    features = learner.features(batch.images)
    assert features is not None, "self-critical training reads features"
    captions, rewards = learner.sampler(learner, features, batch.rows.tolist(), batch.seed)
    worth = advantages(rewards).flatten().to(features.device)  # (B, S) -> (B * S,)
    flat = [caption for some in captions for caption in some]
    repeated = features.repeat_interleave(learner.sampler.num_samples, 0)  # (B, D) -> (B * S, D)
    total = learner.sampled_loss(repeated, flat, worth)
    shown = {"reward": (float(rewards.sum()), float(rewards.numel()))}
    return StepLoss(total, sum(map(len, flat)), shown)


@torch.no_grad()
def encode(learner: SentenceLearner, images: Mapping[str, Tensor]) -> Tensor:
    """Features (B, D) float32 of a batch of images, on the learner's device."""
    device = learner.model.device
    features = learner.features({name: tensor.to(device) for name, tensor in images.items()})
    assert features is not None, "text has no images to encode"
    return features.float()
