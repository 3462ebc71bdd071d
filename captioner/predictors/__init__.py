"""Trained models ready for use: ``load`` returns a predictor for images, or for clips of videos.

Importing this package loads neither torch nor any model.
"""

from __future__ import annotations

import os
from pathlib import Path

from captioner.errors import CheckpointError
from captioner.predictors.base import Caption, Captioner, Result, label_kind

__all__ = ["MODELS", "Caption", "Captioner", "Result", "find_model", "load"]

MODELS = {"default": Path(__file__).parents[1] / "assets" / "default.safetensors"}
"""Models that come with the package, by name."""


def load(model: str | os.PathLike[str] = "default", device: str = "cpu") -> Captioner:
    """Load a model: a name in ``MODELS``, a checkpoint file, or the folder of a training run (its best checkpoint).

    Returns a ``ClipCaptioner`` for a model of label predictions, an ``LRCNCaptioner`` for any other. Raises
    ``CheckpointError`` where there is no such model, ``UsageError`` for a device that this machine does not have.
    """
    from captioner.checkpoint import load_checkpoint
    from captioner.devices import find_device

    checkpoint, place = load_checkpoint(find_model(model)), find_device(device)
    if label_kind(checkpoint.backbones):
        from captioner.predictors.video import ClipCaptioner

        return ClipCaptioner(checkpoint, str(model), place)
    from captioner.predictors.lrcn import LRCNCaptioner

    return LRCNCaptioner(checkpoint, str(model), place)


def find_model(model: str | os.PathLike[str]) -> Path:
    """The checkpoint file of a model named as for ``load``; raises ``CheckpointError`` where there is none."""
    path = MODELS.get(str(model)) or Path(model)
    if path.is_dir() and (path / "best.safetensors").is_file():
        path = path / "best.safetensors"
    if not path.is_file():
        if str(model) in MODELS:
            raise CheckpointError(f"{path}, the {model} model, is missing from this installation; name another model")
        raise CheckpointError(
            f"{model}: no such model; give {', '.join(MODELS)}, a .safetensors checkpoint or a training run's folder"
        )
    return path
