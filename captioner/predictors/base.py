"""The interface of all predictors, and the records that they return."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from captioner.errors import ImageError

HDF5_SIGNATURE, HDF5_SUFFIXES = b"\x89HDF\r\n\x1a\n", (".h5", ".hdf5")


@dataclass(frozen=True)
class Caption:
    """A sentence and the natural logarithm of its probability under the model, including its end."""

    text: str
    log_prob: float | None
    """None if the model, such as some servers, does not return it."""


class ClassScore(NamedTuple):
    """A class and its probability in 0..1."""

    name: str
    probability: float


@dataclass(frozen=True)
class Result:
    """The captions of one image, clip or interval, best first, or the error that prevented them."""

    image: Any
    """The path, PIL image, or id of an image or clip; for an interval the path of its video."""
    captions: tuple[Caption, ...] = ()
    error: ImageError | None = None
    interval: tuple[float, float] | None = None
    """Start and end in seconds; None except for an interval of a video."""


Results = Generator[Result, None, None]


class Captioner(Protocol):
    """The interface of what ``captioner.load`` returns.

    ``source`` is one path or PIL image or an iterable of them, or for clips a file of label predictions or a video.
    ``options`` are the fields of ``DecodingConfig``, which override the model's own settings, and ``batch_size``.
    Contradictory options raise ``UsageError``.
    """

    @property
    def name(self) -> str:
        """The name or path from which the model was loaded."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the model's file, or of everything else that affects its captions; empty if unknown."""
        ...

    def caption(self, source: Any, /, **options: Any) -> Any:
        """The caption of one image, or a list with one for each of several images or clips.

        With ``num_return_sequences`` above 1, each is a list of captions, best first. Raises the first error.
        """
        ...

    def results(self, source: Any, /, **options: Any) -> Results:
        """Yield a ``Result`` for each image or clip, in order; errors are part of the results."""
        ...


def texts(result: Result, several: bool) -> Any:
    """The best caption's text, or with ``several`` a list of all; raises the result's error."""
    if result.error is not None:
        raise result.error
    found = [caption.text for caption in result.captions]
    return found if several else found[0]


def is_label_predictions(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds label predictions, not a video, by its suffix or its first bytes (HDF5)."""
    path = Path(path)
    if path.suffix.lower() in HDF5_SUFFIXES:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
