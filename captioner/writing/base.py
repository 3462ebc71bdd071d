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
    """The complete caption in the file."""


class Destination(Protocol):
    """A destination of captions: one file for each image."""

    def target(self, image: ImageFile) -> Path:
        """The file for an image."""
        ...

    def read(self, path: Path) -> str:
        """The caption in a target; empty if there is none. Raises ``ImageError`` for a file that cannot hold one."""
        ...

    def write(self, path: Path, text: str) -> None:
        """Write a caption into a target, atomically; the rest of the file stays. Raises the errors of ``read``."""
        ...


def check_target(path: Path) -> None:
    """Raise ``ImageError`` for a link: files must not be written outside a folder because of a stranger's link."""
    if os.path.islink(path):
        raise ImageError(path, "is a link to another file; nothing is written through links")


def check_inside(image: ImageFile, target: Path) -> None:
    """Raise ``ImageError`` if the target is beside an image that was reached by a link to a folder elsewhere."""
    if target.parent != image.path.parent:  # the target is in a folder that the user named
        return
    folder = image.path.parent
    for _ in Path(image.id).parts[1:]:
        folder = folder.parent
    if not Path(os.path.realpath(image.path.parent)).is_relative_to(os.path.realpath(folder)):
        raise ImageError(image.path, f"a link leads out of {folder}; nothing is written there, name that folder itself")
