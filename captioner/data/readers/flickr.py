"""Flickr8k (Hodosh et al. 2013) and Flickr30k (Young et al. 2014): token files with lists of names for each split."""

from __future__ import annotations

import re
from pathlib import Path

from captioner.data.readers.karpathy import read_karpathy
from captioner.data.records import Captioned, Images, find_file, find_folder, read_lines
from captioner.errors import DataError

_LINE = re.compile(r"(?P<image>.+?\.(?:jpe?g|png))(?:\.\d+)?#(?P<number>r?\d+)\t(?P<caption>.*)", re.IGNORECASE)
"""``name.jpg#0<TAB>caption``. Flickr8k's ``2258277193_586949ec62.jpg.1#0`` is a slip for ``....jpg#0``."""

_FLICKR8K_TOKENS = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt", "captions.token")
_FLICKR8K_IMAGES = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset")
_FLICKR30K_TOKENS = ("results_20130124.token", "captions.token", "flickr30k/results_20130124.token")
_FLICKR30K_IMAGES = ("images", "flickr30k-images", "flickr30k_images", "Images")


def read_flickr8k(root: Path) -> list[Captioned]:
    """The 8,000 images of the official lists. ``root`` holds ``Flickr8k.token.txt``, the three
    ``Flickr_8k.*Images.txt`` and the images in a folder such as ``images`` or ``Flicker8k_Dataset``."""
    tokens = find_file(root, _FLICKR8K_TOKENS, "caption file of Flickr8k")
    lists = {}
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        found = find_file(tokens.parent, (f"Flickr_8k.{name}Images.txt",), f"{split} list of Flickr8k")
        lists[split] = read_lines(found)
    return _assemble(tokens, lists, Images(find_folder(root, _FLICKR8K_IMAGES)))


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
    return _assemble(tokens, lists, Images(find_folder(root, _FLICKR30K_IMAGES)))


def _assemble(tokens: Path, lists: dict[str, list[str]], files: Images) -> list[Captioned]:
    """Records in the order of the lists; ``lists`` maps a split to its file names (a name may lack ``.jpg``)."""
    captions = read_tokens(tokens)
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
