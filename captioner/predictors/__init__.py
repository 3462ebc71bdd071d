"""Trained models ready for use: ``load`` returns a predictor for images, videos, or clips of videos.

Importing this package loads neither torch nor any model.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from captioner.errors import CheckpointError, UsageError, shorten
from captioner.optional import require
from captioner.predictors.base import Caption, Captioner, Result
from captioner.predictors.pretrained import ALIASES, find_pretrained

__all__ = ["MODELS", "Caption", "Captioner", "Result", "find_model", "load"]

MODELS = {"default": Path(__file__).parents[1] / "assets" / "default.safetensors"}
"""Models that come with the package, by name."""
PREDICTORS = {
    "captioning": "captioner.predictors.lrcn:LRCNCaptioner",
    "clip_captioning": "captioner.predictors.video:ClipCaptioner",
    "activity": "captioner.predictors.activity:ActivityRecognizer",
}
"""Class of the predictor (runtime, name) by its model's task; models of other tasks have no predictor."""


def load(
    model: str | os.PathLike[str] = "default", device: str = "cpu", runtime: str = "auto", prompt: str | None = None
) -> Any:
    """Load a model: a name in ``MODELS``, a checkpoint file, or the folder of a training run (its best checkpoint).

    A published model of Hugging Face transformers is named by an alias (``captioner.predictors.pretrained.ALIASES``),
    as ``hf:OWNER/NAME`` or by the folder of its files, a model on a server as ``http://HOST:PORT/v1#MODEL``. Such
    models may read a text with the image, the ``prompt``.

    ``runtime`` is ``torch``, ``onnx`` (ONNX Runtime, for files of ``captioner export``) or ``auto``, which takes ONNX
    Runtime if possible. Returns the predictor of the model's task: a ``Captioner``, that is an ``LRCNCaptioner`` for
    images or a ``ClipCaptioner`` for clips, or an ``ActivityRecognizer`` for videos. Raises ``CheckpointError`` if
    there is no such model or its task has no predictor, ``UsageError`` for a device that this machine does not have, a
    runtime that cannot run the model, or a prompt for a model that reads only images.
    """
    if re.match(r"https?://", str(model)) and not Path(model).exists():
        if device != "cpu":
            raise UsageError(f"--device {device}: the server chooses its device; leave it out")
        from captioner.predictors.server import ServerCaptioner

        return ServerCaptioner(str(model), prompt)
    record = None if _is_own(model) else find_pretrained(str(model))
    if record is not None:
        require("torch", "torch")
        from captioner.predictors.generate import load_generate

        return load_generate(record, str(model), device, prompt)
    if prompt is not None:
        raise UsageError(f"--prompt is for models that read text with the image; {model} reads images only")
    from captioner.model_file import read_header
    from captioner.predictors.runtime import load_runtime
    from captioner.registry import resolve

    header = read_header(find_model(model, "hf:OWNER/NAME", *ALIASES))
    if header.task not in PREDICTORS:
        raise CheckpointError(f"{model} cannot be used by itself: it was trained for the task {shorten(header.task)}")
    predictor = resolve(PREDICTORS, header.task, "predictor")
    return predictor(load_runtime(header, str(model), device, runtime), str(model))


def _is_own(model: str | os.PathLike[str]) -> bool:
    """Whether a name stands for one of captioner's own models: the default, a file, or a run's folder."""
    return str(model) in MODELS or Path(model).is_file() or (Path(model) / "best.safetensors").is_file()


def find_model(model: str | os.PathLike[str], *others: str) -> Path:
    """The checkpoint file of a model in ``MODELS``, a file or the folder of a training run.

    Raises ``CheckpointError`` if there is none; the error names ``others`` too, which the caller could have loaded.
    """
    path = MODELS.get(str(model)) or Path(model)
    if path.is_dir() and (path / "best.safetensors").is_file():
        path = path / "best.safetensors"
    if not path.is_file():
        if str(model) in MODELS:
            raise CheckpointError(f"{path}, the {model} model, is missing from this installation; name another model")
        names = [*MODELS, "a .safetensors checkpoint", "a training run's folder", *others]
        raise CheckpointError(f"{model}: no such model; give {', '.join(names[:-1])} or {names[-1]}")
    return path
