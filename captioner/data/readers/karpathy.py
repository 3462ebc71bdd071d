"""Karpathy's ``dataset_*.json`` (Karpathy & Fei-Fei 2015): Flickr8k, Flickr30k or COCO with his splits in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from captioner.data.records import Captioned, find_folder, on_disk, read_text, split_name
from captioner.errors import DataError

_NAMES = ("dataset_coco.json", "dataset_flickr30k.json", "dataset_flickr8k.json", "dataset.json")
_IMAGES = ("images", "Images", "imgs", "flickr30k-images", "Flicker8k_Dataset")


def read_karpathy(root: Path) -> list[Captioned]:
    """The images of a ``dataset_*.json`` (the file, or a folder that holds exactly one). ``restval`` is training.

    A COCO image's id is its file name, ``number`` its ``cocoid``; it lies at ``filepath/filename``.
    """
    path = _json_of(root)
    images = load_json(path)
    images = images.get("images") if isinstance(images, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path}: not a Karpathy file: it has no list 'images'")
    folder = find_folder(path.parent, _IMAGES)
    return [_record(path, folder, index, image) for index, image in enumerate(images)]


def load_json(path: Path) -> Any:
    """The value of a JSON file, or a ``DataError`` that says where it breaks."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise DataError(f"{path}: not valid JSON: {error}") from error


def _json_of(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder; give a Karpathy dataset_*.json or its folder")
    found = [root / name for name in _NAMES if (root / name).is_file()]
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or f"none of {', '.join(_NAMES)}"
        raise DataError(f"{root}: expected one Karpathy file, found {there}; give the file itself")
    return found[0]


def _record(path: Path, folder: Path, index: int, image: Any) -> Captioned:
    try:
        name = str(image["filename"])
        below = str(image.get("filepath", ""))
        split = split_name(str(image["split"]), f"{path}, image {index}")
        captions = tuple(str(sentence["raw"]).strip() for sentence in image["sentences"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}, image {index}: needs filename, split and sentences with raw ({error})") from error
    number = image.get("cocoid")
    if not isinstance(number, int | str | None):
        raise DataError(f"{path}, image {index}: cocoid must be a number, not {number!r}")
    place = on_disk(folder / below / name) or on_disk(folder / name)
    return Captioned(name, place, tuple(c for c in captions if c), split, number)
