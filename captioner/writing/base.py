"""The interface of all destinations of captions, and the record of a written file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from captioner.data.images import ImageFile
from captioner.errors import ImageError


@dataclass(frozen=True)
class Written:
    """A file that was written, or would be in a dry run."""

    path: Path
    text: str
    """The whole caption in the file."""


class Destination(Protocol):
    """A destination of captions: one file for each image."""

    def target(self, image: ImageFile) -> Path:
        """The file for an image."""
        ...

    def read(self, path: Path) -> str:
        """The caption in a target; empty where there is none. ``ImageError`` for a file that cannot hold one."""
        ...

    def write(self, path: Path, text: str) -> None:
        """Put a caption into a target, whole or not at all; all else in the file stays. Raises as ``read`` does."""
        ...


def check_target(path: Path) -> None:
    """Raise ``ImageError`` for a link: a stranger's folder must not lead writing out of it."""
    if os.path.islink(path):
        raise ImageError(path, "is a link to another file; nothing is written through links")


def check_inside(image: ImageFile, target: Path) -> None:
    """Raise ``ImageError`` for a target beside an image that a link to a folder elsewhere led to."""
    if target.parent != image.path.parent:  # in a folder that the user named for it
        return
    folder = image.path.parent
    for _ in Path(image.id).parts[1:]:
        folder = folder.parent
    if not Path(os.path.realpath(image.path.parent)).is_relative_to(os.path.realpath(folder)):
        raise ImageError(image.path, f"a link leads out of {folder}; nothing is written there, name that folder itself")
