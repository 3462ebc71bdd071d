"""Recognize activities in videos.

from captioner import load
recognizer = load("runs/activity")
for guess in recognizer.recognize("video.mp4"):
    print(guess.name, guess.probability)
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from captioner.backbones.spec import normalize
from captioner.checkpoint import load_checkpoint
from captioner.data.records import ClassNames
from captioner.data.video import read_end
from captioner.devices import find_device
from captioner.errors import CheckpointError, DataError, ImageError, UsageError
from captioner.features.video_spec import VideoSpec, clip_views
from captioner.models.sequence import SequenceClassifier
from captioner.predictors import find_model
from captioner.predictors.base import ClassScore
from captioner.predictors.classifier import best_classes
from captioner.predictors.torch_runtime import TorchRuntime

TOP = 5
"""Number of activities that are returned for each video."""
WINDOW = 10.0
"""Length in seconds of the clips that a video is cut into."""
Source = str | os.PathLike[str]


@dataclass(frozen=True)
class Recognition:
    """The activities in one video or clip, most probable first, or the error that prevented them."""

    video: str
    guesses: tuple[ClassScore, ...] = ()
    interval: tuple[float, float] | None = None
    """Start and end of the clip in seconds; None for a whole video."""
    error: ImageError | None = None


class ActivityRecognizer:
    """A classifier of videos, with the networks that compute features of the frames or of their optical flow."""

    def __init__(self, runtime: TorchRuntime, name: str = "model") -> None:
        self.runtime, self.name = runtime, name
        specs, outputs = runtime.checkpoint.inputs, runtime.checkpoint.outputs
        self.specs = [spec for spec in specs if isinstance(spec, VideoSpec)]
        if len(self.specs) != len(specs) or not specs or not isinstance(outputs, ClassNames):
            raise CheckpointError(f"{name}: does not classify features of videos, though its task is activity")
        if len({spec.frames for spec in self.specs}) > 1:
            raise CheckpointError(f"{name}: its inputs have different numbers of frames")
        self.classes = outputs

    @property
    def digest(self) -> str:
        """SHA-256 of the model's file."""
        return str(self.runtime.checkpoint.digest)

    def recognize(
        self, source: Source | Iterable[Source], *, top: int = TOP
    ) -> list[ClassScore] | list[list[ClassScore]]:
        """The ``top`` activities of one video, or a list of them for each of several; raises the first error."""
        if isinstance(source, str | os.PathLike):
            return self._guesses(source, top)
        return [self._guesses(one, top) for one in source]

    def results(
        self, sources: Iterable[Source | ImageError], *, top: int = TOP, every: float | None = None
    ) -> Generator[Recognition, None, None]:
        """Yield a ``Recognition`` of each video or, with ``every``, of each clip of that many seconds.

        If less than half a clip is left at the end, the last clip is longer instead. Errors are results too.
        """
        if top < 1 or (every is not None and not every > 0):
            raise UsageError(f"top ({top}) must be at least 1, the length of clips ({every}) above 0 seconds")
        self.runtime.prepare()
        for source in sources:
            if isinstance(source, ImageError):
                yield Recognition(str(source.path), error=source)
                continue
            path = os.fspath(source)
            try:
                edges = _edges(read_end(path), every)
                for interval, views in zip(pairwise(edges), clip_views(path, edges, self.specs), strict=True):
                    guesses = self.guess(self.probabilities(views), top)
                    yield Recognition(path, guesses, interval if every else None)
            except DataError as error:
                reason = str(error).removeprefix(f"{path}: ")
                yield Recognition(path, error=ImageError(path, reason))

    def probabilities(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """Class probabilities (C,) of a clip from each input's frames or flow images, (T, S, S, 3) uint8."""
        images = [normalize(view, spec) for view, spec in zip(views, self.specs, strict=True)]
        features = torch.from_numpy(self.runtime.encode(images)).to(self.runtime.device)  # (T, D)
        model: SequenceClassifier = self.runtime.model
        found: np.ndarray = model.predict(features[None])[0].cpu().numpy()
        return found

    def guess(self, probabilities: np.ndarray, top: int = TOP) -> tuple[ClassScore, ...]:
        """The ``top`` activities, given the class probabilities (C,)."""
        return best_classes(self.classes.names, probabilities, top)

    def _guesses(self, source: Source, top: int) -> list[ClassScore]:
        [result] = self.results([source], top=top)
        if result.error is not None:
            raise result.error
        return list(result.guesses)


def load_recognizer(model: Source, device: str = "cpu") -> ActivityRecognizer:
    """Load the recognizer from a checkpoint file or the folder of a training run; errors as of ``captioner.load``."""
    path = find_model(model)
    checkpoint = load_checkpoint(path)
    if checkpoint.task != "activity":
        raise CheckpointError(f"{model}: was trained for the task {checkpoint.task}, not for activity")
    return ActivityRecognizer(TorchRuntime(checkpoint, str(model), find_device(device)), str(model))


def _edges(end: float, every: float | None) -> list[float]:
    """Boundaries of the clips of a video, in seconds."""
    if every is None:
        return [0.0, end]
    count = max(1, int(end / every + 0.5))
    return [*(number * every for number in range(count)), end]
