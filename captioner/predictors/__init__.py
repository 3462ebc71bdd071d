"""Trained models ready for use: ``load`` returns a predictor for images, or for clips of videos.

Importing this package loads neither torch nor any model.
"""

from __future__ import annotations

import os
from pathlib import Path

from captioner.errors import CheckpointError
from captioner.predictors.base import Caption, Captioner, Result

__all__ = ["MODELS", "Caption", "Captioner", "Result", "find_model", "load"]

MODELS = {"default": Path(__file__).parents[1] / "assets" / "default.safetensors"}
"""Models that come with the package, by name."""


def load(model: str | os.PathLike[str] = "default", device: str = "cpu") -> Captioner:
    """Load a model: a name in ``MODELS``, a checkpoint file, or the folder of a training run (its best checkpoint).

    Returns the predictor of the model's task: an ``LRCNCaptioner`` for images, a ``ClipCaptioner`` for clips. Raises
    ``CheckpointError`` where there is no such model or its task has no predictor, ``UsageError`` for a device that this
    machine does not have.
    """
    from captioner.checkpoint import load_checkpoint
    from captioner.devices import find_device
    from captioner.registry import resolve
    from captioner.tasks.base import find_task

    checkpoint, place = load_checkpoint(find_model(model)), find_device(device)
    predictor = find_task(checkpoint.task).predictor
    if not predictor:
        raise CheckpointError(f"{model} cannot be used by itself: it was trained for the task {checkpoint.task}")
    found: Captioner = resolve({checkpoint.task: predictor}, checkpoint.task, "predictor")(
        checkpoint, str(model), place
    )
    return found


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
