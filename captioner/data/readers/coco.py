"""COCO's official caption annotations, read by pycocotools. Karpathy's split of COCO is in ``karpathy.py``."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from captioner.data.records import Captioned, Images, find_folder, read_json, split_name
from captioner.errors import DataError, shorten
from captioner.optional import require

_NAMES = tuple(f"captions_{split}{year}.json" for year in (2017, 2014) for split in ("train", "val"))


def read_coco(root: Path) -> list[Captioned]:
    """Records of an annotation file, or of the train and val files of one year below a folder.

    Files are searched in the folder and in ``annotations`` below it, images in ``train2017`` or ``images/train2017``
    and so on beside them. A file whose name contains none of train, val and test counts as val. An image without
    ``file_name``, or named only in annotations, has its id as a string for ``image_id``.
    """
    if root.is_file():
        return _read_file(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder; give COCO's folder or one captions_*.json")
    folder = root / "annotations" if (root / "annotations").is_dir() else root
    found = [folder / name for name in _NAMES if (folder / name).is_file()]
    years = {path.stem[-4:] for path in found}
    if not found:
        raise DataError(f"{folder}: no caption annotations here; looked for {', '.join(_NAMES)}")
    if len(years) > 1:
        raise DataError(f"{folder}: holds captions of 2014 and of 2017, which are the same images; give one file")
    return [record for path in found for record in _read_file(path)]


def _read_file(path: Path) -> list[Captioned]:
    coco = _load(path)
    match = re.search(r"(train|val|test)(\d{4})?", path.stem)
    split = split_name(match[1], str(path)) if match else "val"
    base = path.parent.parent if path.parent.name == "annotations" else path.parent
    part = match[0] if match else "images"
    files = Images(find_folder(base, (part, f"images/{part}", "images")))
    records = []
    for key in sorted(coco.imgs, key=lambda key: (isinstance(key, str), key)):  # numbers first
        name = str(coco.imgs[key].get("file_name") or key)
        captions = tuple(text for entry in coco.imgToAnns.get(key, []) if (text := entry["caption"].strip()))
        records.append(Captioned(name, files.find(name), captions, split, key))
    return records


def _load(path: Path) -> Any:
    """pycocotools' index of the file, reduced to what scoring needs and built without printing.

    The images are those named in ``images`` or in an annotation. coco-caption reads only ``image_id`` and ``caption``,
    so files without anything else, even without a list of images, are valid.
    """
    content = read_json(path)
    content = content if isinstance(content, dict) else {}
    images, annotations = content.get("images") or [], content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(f"{path}: not COCO caption annotations: it needs a list 'annotations'")
    _check_annotations(path, annotations)
    listed = _check_images(path, images)
    if not listed and not annotations:
        raise DataError(f"{path}: not COCO caption annotations: it names no image")
    others = dict.fromkeys(entry["image_id"] for entry in annotations if entry["image_id"] not in listed)
    coco = require("pycocotools.coco", "coco").COCO()
    coco.dataset = {
        "images": [*images, *({"id": key} for key in others)],
        "annotations": [
            {"id": index, "image_id": entry["image_id"], "caption": entry["caption"]}
            for index, entry in enumerate(annotations)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _check_annotations(path: Path, annotations: list[Any]) -> None:
    for index, entry in enumerate(annotations):
        where = f"{path}, annotation {index}"
        if not _is_id(entry, "image_id") or "caption" not in entry:
            raise DataError(
                f"{where}: not COCO caption annotations (captions_*.json): "
                "needs image_id (a number or text) and caption (a text)"
            )
        if not isinstance(caption := entry["caption"], str):
            found = "null" if caption is None else shorten(caption)
            raise DataError(
                f"{where}, of image_id {entry['image_id']}: its caption is {found}, not a text; remove the annotation"
            )


def _check_images(path: Path, images: list[Any]) -> dict[int | str, Any]:
    """The entries of ``images`` by id; repeated entries are the same image."""
    listed: dict[int | str, Any] = {}
    for index, image in enumerate(images):
        if not _is_id(image, "id"):
            raise DataError(f"{path}, image {index}: needs id (a number or text)")
        if listed.setdefault(image["id"], image).get("file_name") != image.get("file_name"):
            raise DataError(f"{path}: two images have the id {image['id']}; give each its own id")
    return listed


def _is_id(entry: Any, key: str) -> bool:
    """Whether ``entry`` is an object whose ``key`` is a number or a string."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""
