"""Text files beside images, such as ``photo.txt`` for ``photo.jpg``, a format for training image generators."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from captioner.data.images import SUFFIXES, UNREAD_SUFFIXES, ImageFile
from captioner.errors import CaptionerError, ImageError, UsageError
from captioner.files import read_text, write_text
from captioner.writing.base import check_target


@dataclass(frozen=True)
class Sidecars:
    """Files with the suffix ``suffix`` beside the images, or in a tree below ``folder`` that mirrors theirs."""

    suffix: str = ".txt"
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(\.[\w-]+)+", self.suffix):
            raise UsageError(f"--sidecar {self.suffix}: give a suffix such as .txt or .caption")
        last = "." + self.suffix.rpartition(".")[2].lower()
        if last in SUFFIXES | UNREAD_SUFFIXES | {".xmp"}:
            raise UsageError(f"--sidecar {self.suffix}: such files are not text; choose another suffix, or --xmp")

    def target(self, image: ImageFile) -> Path:
        return place(image, self.folder).with_suffix(self.suffix)

    def read(self, path: Path) -> str:
        check_target(path)
        try:
            return read_text(path).strip() if path.exists() else ""
        except CaptionerError as error:
            raise ImageError(path, str(error).removeprefix(f"{path}: ").removeprefix(f"{path}, ")) from error

    def write(self, path: Path, text: str) -> None:
        check_target(path)
        write_text(path, text + "\n")


def place(image: ImageFile, folder: Path | None) -> Path:
    """The image's path, or its place in a tree below ``folder`` that mirrors the searched one."""
    return image.path if folder is None else folder / image.id
