"""Set up a run of a sentence task: its network, learner and starting weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.config import Experiment
from captioner.errors import ConfigError
from captioner.features.spec import FeatureSpec
from captioner.models import MODELS
from captioner.models.lrcn import LRCN
from captioner.registry import resolve
from captioner.tasks.sentences.data import SentenceData
from captioner.tasks.sentences.evaluate import encode_rows
from captioner.tasks.sentences.learner import SentenceLearner
from captioner.tasks.sentences.self_critical import CaptionReward, Sampler
from captioner.tasks.sentences.starting_weights import check_same_model, copy_weights, set_statistics
from captioner.tasks.sentences.teachers import load_teachers
from captioner.text.vocabulary import Vocabulary

STATISTICS_FROM = 1024  # images for the features' statistics if the backbone is fine-tuned


def build_model(config: Any, inputs: Sequence[FeatureSpec], outputs: Vocabulary) -> nn.Module:
    """The sentence decoder of ``config.model``; a model without inputs has features of size 1."""
    size = sum(spec.dimension for spec in inputs) or 1
    names = [name for spec in inputs for name in spec.names]
    model: nn.Module = resolve(MODELS, config.model.architecture, "architecture")(
        config.model, len(outputs), size, names
    )
    return model


def make_text_learner(
    experiment: Experiment, data: SentenceData, model: nn.Module, device: torch.device
) -> SentenceLearner:
    """A language model's learner."""
    assert isinstance(model, LRCN)
    return SentenceLearner(model, label_smoothing=experiment.config.loss.label_smoothing).to(device)


def make_caption_learner(
    experiment: Experiment, data: SentenceData, model: nn.Module, device: torch.device
) -> SentenceLearner:
    """A captioner's learner, with the backbone, teachers or sampler that the configuration names."""
    config = experiment.config
    assert isinstance(model, LRCN)
    teachers = sampler = None
    if config.loss.teachers:
        sizes = {data.teacher_size or model.feature_size, model.feature_size}
        teachers = load_teachers(config.loss.teachers, data.outputs, sizes, device)
    if config.loss.self_critical:
        reward = CaptionReward(data.train_references, config.loss.reward)
        sampler = Sampler(reward, data.outputs.words, config.loss.num_samples, config.decoding.max_length)
    if data.backbone is not None:
        data.backbone.requires_grad_(True)
    return SentenceLearner(
        model,
        data.backbone,
        config.finetune.lr,
        label_smoothing=config.loss.label_smoothing,
        teachers=teachers,
        teacher_weight=config.loss.teacher_weight,
        sampler=sampler,
    ).to(device)


def start_text(experiment: Experiment, data: SentenceData, learner: SentenceLearner) -> list[str]:
    """Copy the weights of ``train.init_from``, if it is set."""
    source = _source(experiment)
    return [] if source is None else [_copy(source, experiment, data, learner, statistics=False)]


def start_captions(experiment: Experiment, data: SentenceData, learner: SentenceLearner) -> list[str]:
    """Set the statistics of the training features, and copy the weights of ``train.init_from``, if it is set.

    The checkpoint's statistics are kept if it has the run's features: in fine-tuning and self-critical training.
    """
    config, model = experiment.config, learner.model
    source = _source(experiment)
    if source is not None and config.loss.self_critical:
        check_same_model(source, experiment.train.init_from, config.model, model.feature_size)
    keep = source is not None and source.model.feature_size == model.feature_size
    keep = keep and (learner.backbone is not None or config.loss.self_critical)
    if config.model.normalize != "none" and not keep:
        learner.eval()
        rows = data.train_rows if learner.backbone is None else data.train_rows[:STATISTICS_FROM]
        set_statistics(model, encode_rows(learner, data, rows), [spec.dimension for spec in data.inputs])
    return [] if source is None else [_copy(source, experiment, data, learner, statistics=keep)]


def _source(experiment: Experiment) -> Checkpoint | None:
    """The checkpoint that starts the run; raises ``ConfigError`` if it is not of a sentence decoder."""
    if not experiment.train.init_from:
        return None
    source = load_checkpoint(experiment.train.init_from)
    if not isinstance(source.model, LRCN):
        raise ConfigError(f"train.init_from {experiment.train.init_from} is of the task {source.task}")
    return source


def _copy(
    source: Checkpoint, experiment: Experiment, data: SentenceData, learner: SentenceLearner, statistics: bool
) -> str:
    report = copy_weights(learner.model, data.outputs, source, statistics=statistics)
    return f"{experiment.train.init_from}: {report}"
