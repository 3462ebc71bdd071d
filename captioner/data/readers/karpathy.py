"""Karpathy's ``dataset_*.json`` (Karpathy & Fei-Fei 2015): Flickr8k, Flickr30k or COCO with his splits in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captioner.data.records import Captioned, Images, find_folder, read_json, split_name
from captioner.errors import DataError, shorten

_NAMES = ("dataset_coco.json", "dataset_flickr30k.json", "dataset_flickr8k.json", "dataset.json")
_IMAGES = ("images", "Images", "imgs", "flickr30k-images", "Flicker8k_Dataset")


def read_karpathy(root: Path) -> list[Captioned]:
    """The images of a ``dataset_*.json`` (the file, or a folder that holds exactly one). ``restval`` is training.

    A COCO image's id is its file name, its ``number`` is its ``cocoid``, and the file is at ``filepath/filename``.
    """
    path = _json_of(root)
    images = read_json(path)
    images = images.get("images") if isinstance(images, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path}: not a Karpathy file: it has no list 'images'")
    files = Images(find_folder(path.parent, _IMAGES))
    return [_record(path, files, index, image) for index, image in enumerate(images)]


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


def _record(path: Path, files: Images, index: int, image: Any) -> Captioned:
    where = f"{path}, image {index}"
    image = image if isinstance(image, dict) else {}
    name, split, sentences = (image.get(key) for key in ("filename", "split", "sentences"))
    below = image.get("filepath", "")
    sentences = sentences if isinstance(sentences, list) else [None]
    captions: list[Any] = [one.get("raw") if isinstance(one, dict) else None for one in sentences]
    if not name or not all(isinstance(text, str) for text in (name, below, split, *captions)):
        named = f" ({name})" if isinstance(name, str) and name else ""
        raise DataError(f"{where}{named}: needs filename, split and sentences with raw, all of them texts")
    number = image.get("cocoid")
    if isinstance(number, bool) or not isinstance(number, int | str | None):
        raise DataError(f"{where}: cocoid must be a number, not {shorten(number)}")
    place = files.find(f"{below}/{name}" if below else name) or files.find(name)
    kept = tuple(caption for text in captions if (caption := text.strip()))
    return Captioned(name, place, kept, split_name(split, where), number)
