"""Flickr8k (Hodosh et al. 2013) and Flickr30k (Young et al. 2014): token files with lists of names for each split.

Kaggle's copy of Flickr8k has a table instead of the token file, and no lists.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from captioner.data.readers.karpathy import read_karpathy
from captioner.data.readers.own import split_of
from captioner.data.records import SPLITS, Captioned, Images, find_file, find_folder, read_lines
from captioner.errors import DataError, shorten

_LINE = re.compile(r"(?P<image>.+?\.(?:jpe?g|png))(?:\.\d+)?#(?P<number>r?\d+)\t(?P<caption>.*)", re.IGNORECASE)
"""``name.jpg#0<TAB>caption``. Flickr8k's ``2258277193_586949ec62.jpg.1#0`` is an error for ``....jpg#0``."""

_FLICKR8K_TOKENS = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt", "captions.token")
_FLICKR8K_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_KAGGLE = "captions.txt"
_FLICKR8K_IMAGES = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset")
_FLICKR30K_TOKENS = ("results_20130124.token", "captions.token", "flickr30k/results_20130124.token")
_FLICKR30K_IMAGES = ("images", "flickr30k-images", "flickr30k_images", "Images")


def read_flickr8k(root: Path) -> list[Captioned]:
    """The 8,000 images of the official lists. ``root`` holds ``Flickr8k.token.txt`` or Kaggle's ``captions.txt``, the
    three ``Flickr_8k.*Images.txt`` and the images in a folder such as ``images`` or ``Flicker8k_Dataset``."""
    tokens = find_file(root, (*_FLICKR8K_TOKENS, _KAGGLE), "caption file of Flickr8k")
    if tokens.name == _KAGGLE and not _has_lists(root):
        raise DataError(
            f"{tokens}: Kaggle's copy has no split; put {', '.join(_FLICKR8K_LISTS.values())} beside it "
            "(captioner data get flickr8k-text), or use the format flickr8k-kaggle, which splits by name; its scores "
            "cannot be compared with published ones"
        )
    captions = read_table(tokens) if tokens.name == _KAGGLE else read_tokens(tokens)
    return _assemble(tokens, captions, _official_lists(tokens), Images(find_folder(root, _FLICKR8K_IMAGES)))


def read_flickr8k_kaggle(root: Path) -> list[Captioned]:
    """Kaggle's copy: ``root`` holds ``captions.txt`` and a folder ``Images``. The official lists beside them give the
    split; without these, it depends on the name of each of the 8,091 images, as in own data."""
    path = find_file(root, (_KAGGLE,), "captions.txt of Kaggle's Flickr8k")
    captions = read_table(path)
    if _has_lists(root):
        lists = _official_lists(path)
    else:
        lists = {split: [name for name in captions if split_of(name) == split] for split in SPLITS}
    return _assemble(path, captions, lists, Images(find_folder(root, _FLICKR8K_IMAGES)))


def _has_lists(folder: Path) -> bool:
    return any((folder / name).exists() for name in _FLICKR8K_LISTS.values())


def _official_lists(tokens: Path) -> dict[str, list[str]]:
    """The names of each split, from the three lists beside the caption file."""
    return {
        split: read_lines(find_file(tokens.parent, (name,), f"{split} list of Flickr8k"))
        for split, name in _FLICKR8K_LISTS.items()
    }


def read_flickr30k(root: Path) -> list[Captioned]:
    """The images of Karpathy's split. ``root`` holds ``dataset_flickr30k.json``, or a token file and three lists
    (``split_karpathy_train.txt`` or ``train.txt``, ...), and the images in a folder such as ``flickr30k-images``."""
    if root.is_file() or (root / "dataset_flickr30k.json").is_file():
        return read_karpathy(root)
    tokens = find_file(root, _FLICKR30K_TOKENS, "caption file of Flickr30k")
    lists = {}
    for split in ("train", "val", "test"):
        names = (f"split_karpathy_{split}.txt", f"{split}.txt", f"flickr30k_{split}.txt")
        lists[split] = read_lines(find_file(root, names, f"{split} list of Flickr30k"))
    return _assemble(tokens, read_tokens(tokens), lists, Images(find_folder(root, _FLICKR30K_IMAGES)))


def _assemble(
    tokens: Path, captions: dict[str, list[str]], lists: dict[str, list[str]], files: Images
) -> list[Captioned]:
    """Records in the order of the lists; ``lists`` maps a split to its file names (a name may lack ``.jpg``)."""
    records: list[Captioned] = []
    seen: dict[str, str] = {}
    for split, lines in lists.items():
        for line in filter(None, map(str.strip, lines)):
            name = line if "." in line else f"{line}.jpg"
            if name in seen:
                raise DataError(f"{tokens.parent}: {name} is both in the {seen[name]} and the {split} list")
            if name not in captions:
                raise DataError(f"{tokens}: no caption for {name}, which is in the {split} list")
            seen[name] = split
            records.append(Captioned(name, files.find(name), tuple(captions[name]), split))
    return records


def read_tokens(path: Path) -> dict[str, list[str]]:
    """Captions by image, in the order of a token file. Blank captions, which Flickr30k has, are left out."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise DataError(f"{path}, line {number}: expected 'image.jpg#0<TAB>caption', found {line[:60]!r}")
        held = captions.setdefault(match["image"], [])
        if match["caption"].strip():
            held.append(match["caption"].strip())
    return captions


def read_table(path: Path) -> dict[str, list[str]]:
    """Captions by image, in the order of Kaggle's table: ``image,caption``, with quotes around captions with commas."""
    captions: dict[str, list[str]] = {}
    rows = csv.reader((f"{line}\n" for line in read_lines(path)), strict=True)
    try:
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if rows.line_num == 1:
                if [cell.strip().lower() for cell in row] != ["image", "caption"]:
                    raise DataError(f"{where}: expected the heading image,caption, found {shorten(','.join(row))}")
            elif any(cell.strip() for cell in row):
                if len(row) != 2 or not row[0].strip():
                    raise DataError(f"{where}: expected image,caption; put a caption with commas in quotes")
                held = captions.setdefault(row[0].strip(), [])
                held += filter(None, [" ".join(row[1].split())])
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}") from error
    return captions
