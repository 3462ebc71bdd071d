"""Learning from trained models: what they expect, and what the loss makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captioner.checkpoint import save_checkpoint
from captioner.errors import ConfigError
from captioner.experiment import load_experiment
from captioner.features.spec import FeatureSpec
from captioner.models.lrcn import LRCN, LRCNConfig
from captioner.tasks.sentences.config import CaptioningConfig
from captioner.tasks.sentences.learner import SentenceLearner
from captioner.tasks.sentences.teachers import Teachers, load_teachers
from captioner.text.vocabulary import PAD, Vocabulary

VOCABULARY = Vocabulary.build([["a", "dog", "runs", "home"]], 1)
SMALL = LRCNConfig(wiring="2f", embedding_dim=6, hidden_dim=7, image_dim=5)


def model(seed: int, feature_size: int = 4) -> LRCN:
    torch.manual_seed(seed)
    return LRCN(SMALL, len(VOCABULARY), feature_size)


@pytest.fixture
def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Features (2, 4), inputs and targets (2, 3); the second caption is shorter."""
    torch.manual_seed(9)
    features = {"input": torch.randn(2, 4)}
    return features, torch.tensor([[1, 4, 5], [1, 6, 2]]), torch.tensor([[4, 5, 2], [6, 2, PAD]])


def distilled(student: LRCN, *teachers: LRCN, weight: float = 1.0) -> SentenceLearner:
    return SentenceLearner(student, teachers=Teachers(teachers), teacher_weight=weight)


def test_the_target_is_the_mean_of_probabilities(batch):
    """Would catch a mean of logits, and padding or another order of tokens among the targets."""
    images, inputs, targets = batch
    features, models = images["input"], [model(1), model(2)]
    ours = torch.log_softmax(model(0)(features, inputs), -1)
    theirs = (models[0](features, inputs).softmax(-1) + models[1](features, inputs).softmax(-1)) / 2
    expected = -(theirs * ours).sum(-1)[targets != PAD].sum()
    torch.testing.assert_close(distilled(model(0), *models)(*batch), expected)


def test_the_weight_is_the_teachers_share_of_the_loss(batch):
    alone = SentenceLearner(model(0))(*batch)
    taught = distilled(model(0), model(1))(*batch)
    both = distilled(model(0), model(1), weight=0.25)(*batch)
    torch.testing.assert_close(both, 0.75 * alone + 0.25 * taught)


def test_a_model_that_agrees_with_its_teacher_learns_nothing(batch):
    """Would catch teachers with dropout, or targets that carry a gradient."""
    learner = distilled(model(3), model(3))
    learner(*batch).backward()
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    assert gradients and max(float(g.abs().max()) for g in gradients) < 1e-6


def test_teachers_may_have_features_of_their_own(batch):
    """Would catch a teacher that reads the other kind of features, or a model that reads its teacher's."""
    images, inputs, targets = batch
    theirs = torch.randn(2, 9)
    teacher, equal = model(1, feature_size=9), model(2)
    loss = distilled(model(0), teacher, equal)({**images, "teacher": theirs}, inputs, targets)
    ours = torch.log_softmax(model(0)(images["input"], inputs), -1)
    probs = teacher(theirs, inputs).softmax(-1) + equal(images["input"], inputs).softmax(-1)
    expected = -(probs / 2 * ours).sum(-1)[targets != PAD].sum()
    torch.testing.assert_close(loss, expected)


def test_teachers_are_not_trained():
    """Would catch an optimizer, an average or a checkpoint that takes the teachers in."""
    learner = distilled(model(0), model(1), weight=0.5)
    assert [name for name, _ in learner.named_parameters()] == [
        name for name, _ in SentenceLearner(model(0)).named_parameters()
    ]
    learner.train()
    assert learner.teachers is not None and not any(teacher.training for teacher in learner.teachers.models)


@pytest.mark.parametrize(
    ("words", "size", "message"),
    [
        (["a", "cat"], 4, r"has 6 words, the run 8.*data\.vocabulary_from="),
        (None, 5, r"takes 5 numbers.*given 4.*r_features"),
    ],
)
def test_a_teacher_of_other_words_or_features_is_refused(tmp_path: Path, words, size, message):
    vocabulary = VOCABULARY if words is None else Vocabulary.build([words], 1)
    other, path = LRCN(SMALL, len(vocabulary), size), tmp_path / "t.safetensors"
    save_checkpoint(path, "captioning", other, CaptioningConfig(SMALL), [FeatureSpec("x", size)], vocabulary)
    with pytest.raises(ConfigError, match=message):
        load_teachers([str(path)], VOCABULARY, [4], torch.device("cpu"))


def test_features_for_teachers_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"loss\.teacher_features.*name their checkpoints"):
        load_experiment("flickr8k-4f", ["loss.teacher_features=[b4.h5]"])


@pytest.mark.parametrize("setting", ["finetune.backbone=compact", "loss.objective=self_critical"])
def test_settings_that_exclude_teachers_are_refused(setting):
    settings = ["loss.teachers=[t.safetensors]", setting, "train.init_from=t.safetensors"]
    with pytest.raises(ConfigError, match=r"loss\.teachers"):
        load_experiment("flickr8k-4f", settings)
