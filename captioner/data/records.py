"""What every reader of a data set gives: one record an image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from captioner.errors import DataError

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Record:
    """An image with its captions.

    ``image_id`` is the image's name in a feature store: its path below the images' folder, with suffix.
    ``path`` is the file, or ``None`` when it is not on this disk (features may be). ``split`` is train, val or test.
    ``number`` is the data set's own id, as results in COCO form use it: mostly a number, but a text is valid too.
    """

    image_id: str
    path: Path | None
    captions: tuple[str, ...]
    split: str
    number: int | str | None = None


def split_name(name: str, where: str) -> str:
    """train, val or test for any usual spelling (dev, restval, ...); else ``DataError`` naming ``where``."""
    found = SPLIT_NAMES.get(name.strip().lower())
    if found is None:
        raise DataError(f"{where}: unknown split {name!r}; use train, val or test")
    return found


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file without line ends; a byte-order mark and Windows line ends are taken off.

    Only newlines part lines: a caption may hold U+2028 and other characters at which ``str.splitlines`` breaks.
    """
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_text(path: Path) -> str:
    """A whole UTF-8 file without its byte-order mark; ``DataError`` says why it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text; save the file with the encoding UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def find_file(root: Path, names: tuple[str, ...], what: str) -> Path:
    """The first of ``names`` below ``root``, a folder; ``DataError`` names all that were looked for."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds the {what}")
    for name in names:
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root}: no {what} here; looked for {', '.join(names)}")


def find_folder(root: Path, names: tuple[str, ...]) -> Path:
    """The first of ``names`` that is a folder below ``root``; ``root`` itself when none is."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def on_disk(path: Path) -> Path | None:
    return path if os.path.isfile(path) else None  # False, not an error, for a name that no file can have


def of_split(records: list[Record], split: str) -> list[Record]:
    """The records of ``split`` (any usual spelling); ``DataError`` when there are none."""
    wanted = split_name(split, "--split")
    chosen = [record for record in records if record.split == wanted]
    if not chosen:
        counts = ", ".join(f"{name} {sum(r.split == name for r in records)}" for name in SPLITS)
        raise DataError(f"no images in split {wanted}; the data set has: {counts}")
    return chosen
