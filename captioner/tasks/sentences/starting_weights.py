"""The starting weights of a run: another checkpoint's weights, and the statistics of the training features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captioner.checkpoint import Checkpoint
from captioner.config import to_mapping
from captioner.errors import ConfigError
from captioner.models.lrcn import LRCN, LRCNConfig
from captioner.text.vocabulary import Vocabulary

STATISTICS = ("feature_mean", "feature_std")
ONLY_TRAINING = ("dropout", "image_dropout", "init")  # settings that do not change the shape or use of a trained model
WORD_ROWS = ("embedding.weight", "lm_head.weight", "lm_head.bias")  # one row per word


@torch.no_grad()
def copy_weights(model: LRCN, vocabulary: Vocabulary, source: Checkpoint, *, statistics: bool) -> str:
    """Copy the weights of ``source`` that fit into ``model``; returns a line that says which ones were copied.

    Tensors with a row for each word are matched word by word, so the vocabularies may differ; all others by name and
    shape. The mean and deviation of the features are copied only with ``statistics``.
    """
    given, own = source.model.state_dict(), model.state_dict()
    pairs = _common_words(source.outputs, vocabulary)
    copied, absent, other = [], [], []
    for name, target in own.items():
        if name in STATISTICS and not statistics:
            continue
        value = given.get(name)
        if value is not None and name in WORD_ROWS and value.shape[1:] == target.shape[1:]:
            target[pairs[1]] = value[pairs[0]].to(target)
            copied.append(name)
        elif value is not None and value.shape == target.shape:
            target.copy_(value)
            copied.append(name)
        elif value is None:
            absent.append(name)
        else:
            other.append(f"{name} {tuple(target.shape)} ({tuple(value.shape)} there)")
    report = f"copied {len(copied)} of {len(copied) + len(absent) + len(other)} tensors, "
    report += f"{len(pairs[0])} of {len(vocabulary)} words"
    parts = list(dict.fromkeys(name.rpartition(".")[0] or name for name in absent))  # each layer once
    left = [*other, *(f"{part} (absent there)" for part in parts)]
    return f"{report}; initialized: {', '.join(left)}" if left else report


def check_same_model(source: Checkpoint, name: str, config: LRCNConfig, feature_size: int) -> None:
    """Raise ``ConfigError`` unless the checkpoint ``name`` holds the model of ``config``; dropout may differ."""
    theirs, ours = to_mapping(source.model.config), to_mapping(config)
    sides = [(f"model.{key}", theirs[key], value) for key, value in ours.items() if key not in ONLY_TRAINING]
    sides.append(("numbers in a feature", source.model.feature_size, feature_size))
    differing = [f"{key} is {theirs} there, {ours} here" for key, theirs, ours in sides if theirs != ours]
    if differing:
        raise ConfigError(f"train.init_from {name} holds another model: {'; '.join(differing)}")


@torch.no_grad()
def set_statistics(model: LRCN, features: Tensor, sizes: Sequence[int]) -> None:
    """Set the model's mean and deviation to those of the training features (N, D).

    ``sizes`` are the dimensions of each backbone, D in total, for models that give a backbone's numbers a common scale.
    """
    features = model.compress(features)
    deviation = features.std(0, correction=0)  # (D,)
    if model.config.normalize != "dimension":
        parts = torch.split(deviation, list(sizes))
        deviation = torch.cat([part.square().mean().sqrt().expand_as(part) for part in parts])
    model.set_statistics(features.mean(0), deviation)


def _common_words(old: Vocabulary, new: Vocabulary) -> tuple[Tensor, Tensor]:
    """Ids of the words in both vocabularies: (W,) in the old one and (W,) in the new one."""
    numbers = {word: i for i, word in enumerate(old.to_list())}
    pairs = [(numbers[word], i) for i, word in enumerate(new.to_list()) if word in numbers]
    both = torch.tensor(pairs).reshape(-1, 2)
    return both[:, 0], both[:, 1]
