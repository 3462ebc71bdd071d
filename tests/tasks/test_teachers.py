"""Learning from trained models: what they expect, and what the loss makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captioner.checkpoint import save_checkpoint
from captioner.config import ModelConfig
from captioner.decoding.config import DecodingConfig
from captioner.errors import ConfigError
from captioner.experiment import load_experiment
from captioner.models.lrcn import ImageCaptioner
from captioner.text.vocabulary import PAD, Vocabulary
from captioner.train.network import Network
from captioner.train.teachers import Teachers, read_teachers

VOCABULARY = Vocabulary.build([["a", "dog", "runs", "home"]], 1)
SMALL = ModelConfig(wiring="2f", embedding=6, hidden=7, image=5)


def model(seed: int, feature_size: int = 4) -> ImageCaptioner:
    torch.manual_seed(seed)
    return ImageCaptioner(SMALL, len(VOCABULARY), feature_size)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (2, 4), inputs and targets (2, 3); the second caption is shorter."""
    torch.manual_seed(9)
    return torch.randn(2, 4), torch.tensor([[1, 4, 5], [1, 6, 2]]), torch.tensor([[4, 5, 2], [6, 2, PAD]])


def test_expectation_is_the_mean_of_probabilities(batch):
    """Would catch a mean of logits, and padding or another order of tokens among the expectations."""
    features, inputs, targets = batch
    models = [model(1), model(2)]
    taken = Network(model(0), teachers=Teachers(models), weight=1.0)
    ours = torch.log_softmax(model(0)(features, inputs), -1)
    theirs = (models[0](features, inputs).softmax(-1) + models[1](features, inputs).softmax(-1)) / 2
    expected = -(theirs * ours).sum(-1)[targets != PAD].sum()
    torch.testing.assert_close(taken(features, inputs, targets, 0.0), expected)


def test_weight_shares_the_loss_between_people_and_teachers(batch):
    alone = Network(model(0))(*batch, 0.0)
    taught = Network(model(0), teachers=Teachers([model(1)]), weight=1.0)(*batch, 0.0)
    both = Network(model(0), teachers=Teachers([model(1)]), weight=0.25)(*batch, 0.0)
    torch.testing.assert_close(both, 0.75 * alone + 0.25 * taught)


def test_a_model_that_agrees_with_its_teacher_learns_nothing(batch):
    """Would catch teachers with dropout, or expectations that carry a gradient."""
    network = Network(model(3), teachers=Teachers([model(3)]), weight=1.0)
    network(*batch, 0.0).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and max(float(g.abs().max()) for g in gradients) < 1e-6


def test_teachers_may_have_features_of_their_own(batch):
    """Would catch a teacher that reads the model's features, or a model that sees its teacher's."""
    own, inputs, targets = batch
    theirs = torch.randn(2, 9)
    teacher = model(1, feature_size=9)
    network = Network(model(0), teachers=Teachers([teacher]), weight=1.0)
    loss = network(torch.cat([own, theirs], 1), inputs, targets, 0.0)
    ours = torch.log_softmax(model(0)(own, inputs), -1)
    expected = -(teacher(theirs, inputs).softmax(-1) * ours).sum(-1)[targets != PAD].sum()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(network.features(torch.cat([own, theirs], 1)), own)


def test_teachers_are_no_part_of_what_is_trained():
    """Would catch an optimizer, an average or a checkpoint that takes the teachers in."""
    taught = Network(model(0), teachers=Teachers([model(1)]), weight=0.5)
    assert [name for name, _ in taught.named_parameters()] == [name for name, _ in Network(model(0)).named_parameters()]
    taught.train()
    assert taught.teachers is not None and not any(teacher.training for teacher in taught.teachers.models)


@pytest.mark.parametrize(
    ("words", "size", "message"),
    [
        (["a", "cat"], 4, r"has 6 words, the run 8.*data\.vocabulary_from="),
        (None, 5, r"takes 5 numbers.*given 4.*r_features"),
    ],
)
def test_a_teacher_of_other_words_or_features_is_refused(tmp_path: Path, words, size, message):
    vocabulary = VOCABULARY if words is None else Vocabulary.build([words], 1)
    other = ImageCaptioner(SMALL, len(vocabulary), size)
    save_checkpoint(tmp_path / "t.safetensors", other, vocabulary, [], DecodingConfig())
    with pytest.raises(ConfigError, match=message):
        read_teachers([str(tmp_path / "t.safetensors")], VOCABULARY, 4, torch.device("cpu"))


def test_features_for_teachers_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"train\.teacher_features.*name their checkpoints"):
        load_experiment("flickr8k-4f", ["train.teacher_features=[b4.h5]"])


@pytest.mark.parametrize("setting", ["train.finetune=true", "train.objective=self_critical", "data.text=t.txt"])
def test_settings_that_exclude_teachers_are_refused(setting):
    settings = ["train.teachers=[t.safetensors]", setting, "train.backbone=compact", "train.init_from=t.safetensors"]
    with pytest.raises(ConfigError, match=r"train\.teachers"):
        load_experiment("flickr8k-4f", settings)
