"""COCO's official caption annotations, read by pycocotools. Karpathy's split of COCO is in ``karpathy.py``."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

from captioner.data.records import Captioned, find_folder, on_disk, split_name
from captioner.errors import DataError
from captioner.optional import require

_NAMES = tuple(f"captions_{split}{year}.json" for year in (2017, 2014) for split in ("train", "val"))


def read_coco(root: Path) -> list[Captioned]:
    """Records of an annotation file, or of the train and val files of one year below a folder.

    Files are looked for in the folder and in ``annotations`` below it, images in ``train2017`` or
    ``images/train2017`` and so on beside them. A file whose name holds neither train, val nor test counts as val.
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
    folder = find_folder(base, (part, f"images/{part}", "images"))
    records = []
    try:
        for number, image in sorted(coco.imgs.items()):
            captions = tuple(text for a in coco.imgToAnns[number] if (text := a["caption"].strip()))
            name = str(image["file_name"])
            records.append(Captioned(name, on_disk(folder / name), captions, split, int(number)))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not COCO caption annotations (captions_*.json): {error!r}") from error
    return records


def _load(path: Path) -> Any:
    """pycocotools' index of the file, without what it prints."""
    module = require("pycocotools.coco", "coco")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = module.COCO(str(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from error
    except (AssertionError, KeyError, TypeError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: not COCO caption annotations (captions_*.json): {error!r}") from error
    if not coco.dataset.get("images") or "annotations" not in coco.dataset:
        raise DataError(f"{path}: not COCO caption annotations: it needs the lists 'images' and 'annotations'")
    return coco
