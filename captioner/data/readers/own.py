"""Your own data: a folder of images, and captions in ``captions.tsv`` or ``captions.jsonl`` (docs/own-data.md)."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.data.records import (
    Captioned,
    Images,
    find_folder,
    in_other_capitals,
    parse_json,
    read_lines,
    same_name,
    split_name,
)
from captioner.errors import DataError, shorten

NAMES = ("captions.tsv", "captions.jsonl")
HEADER = {"image", "images", "file", "filename", "file_name", "path"}
_KEYS = ("image", "caption", "captions", "split")


@dataclass(frozen=True)
class _Row:
    """One caption; ``where`` is ``file, line N`` for messages, ``split`` is empty if the line names none."""

    where: str
    image: str
    caption: str
    split: str


def read_own(root: Path) -> list[Captioned]:
    """Records of a folder with ``captions.tsv`` or ``captions.jsonl``, or of such a file.

    Images are in ``images`` beside the file or, without such a folder, beside the file itself. If the file names no
    splits, ``split_of`` chooses them by the images' names. Raises ``DataError`` for every error in the files.
    """
    path = _caption_file(root)
    rows = list(_tsv_rows(path) if path.suffix == ".tsv" else _jsonl_rows(path))
    if not rows:
        raise DataError(f"{path}: holds no captions; write one image<TAB>caption per line")
    folder = find_folder(path.parent, ("images",))
    ids = _find_images(path, folder, dict.fromkeys(row.image for row in rows))
    captions: dict[str, dict[str, _Row]] = {}
    for row in rows:
        held = captions.setdefault(ids[row.image], {})
        if row.caption in held:
            raise DataError(f"{row.where}: the same image and caption as {held[row.caption].where}; remove one")
        held[row.caption] = row
    splits = _splits(path, captions)
    return [Captioned(name, folder / name, tuple(held), splits[name]) for name, held in captions.items()]


def split_of(image_id: str) -> str:
    """train (80 %), val or test (10 % each) from the name alone, so that new images do not move others."""
    bucket = int.from_bytes(hashlib.sha256(same_name(image_id).encode()).digest()[:4]) % 10
    return "val" if bucket == 8 else "test" if bucket == 9 else "train"


def _caption_file(root: Path) -> Path:
    if root.is_file():
        if root.suffix not in (".tsv", ".jsonl"):
            raise DataError(f"{root}: the captions must be in a .tsv or .jsonl file")
        return root
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder")
    found = [root / name for name in NAMES if (root / name).is_file()]
    if len(found) == 2:
        raise DataError(f"{root}: holds both {' and '.join(NAMES)}; keep one, or give the file itself")
    if not found:
        texts = (".csv", ".txt", ".json", ".tsv", ".jsonl")
        other = sorted(p.name for p in root.glob("*") if p.suffix.lower() in texts)
        hint = f" (there is {other[0]})" if other else ""
        raise DataError(f"{root}: no {' or '.join(NAMES)} here{hint}; put the captions into one")
    return found[0]


def _tsv_rows(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if number == 1 and cells[0].lower() in HEADER:
            continue
        if len(cells) not in (2, 3):
            hint = "; part image and caption by one tab" if len(cells) == 1 else "; a caption must not hold a tab"
            raise DataError(
                f"{where}: expected image<TAB>caption or image<TAB>caption<TAB>split, "
                f"found {len(cells)} column{'s' * (len(cells) > 1)}{hint}"
            )
        yield _row(where, *cells)


def _jsonl_rows(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        image, captions, split = _fields(where, parse_json(line, where))
        for caption in captions:
            yield _row(where, image, caption, split)


def _fields(where: str, item: Any) -> tuple[str, list[str], str]:
    """Image, captions and split ("" for none) of one JSON line."""
    if not isinstance(item, dict):
        raise DataError(f'{where}: expected an object such as {{"image": "a.jpg", "caption": "a dog"}}')
    for key in item:
        near = difflib.get_close_matches(str(key).lower(), _KEYS, 1, 0.7)
        if key not in _KEYS and near:
            raise DataError(f"{where}: unknown key {shorten(key)}; did you mean {near[0]}?")
    if ("caption" in item) == ("captions" in item):
        raise DataError(f"{where}: needs either caption (one sentence) or captions (a list)")
    captions = item.get("captions", [item.get("caption")])
    if not isinstance(captions, list) or not captions or not all(isinstance(text, str) for text in captions):
        raise DataError(f"{where}: a caption is a text in quotes, captions a list of them")
    image, split = item.get("image"), item.get("split") or ""
    if not isinstance(image, str) or not isinstance(split, str):
        raise DataError(f"{where}: image and split are texts in quotes, and image must be there")
    return image, captions, split


def _row(where: str, image: str, caption: str, split: str = "") -> _Row:
    """A checked row, with the usual name of its split."""
    image, caption = image.strip(), " ".join(caption.split())
    if not image:
        raise DataError(f"{where}: the image's name is empty")
    if not caption:
        raise DataError(f"{where}: the caption of {image} is empty; write one or remove the line")
    if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts or image[1:3] == ":\\":
        raise DataError(f"{where}: {image} leads out of the folder; write the name below the folder of the captions")
    return _Row(where, image, caption, split_name(split, where) if split.strip() else "")


def _find_images(path: Path, folder: Path, images: dict[str, None]) -> dict[str, str]:
    """The path below ``folder`` of each image name in the file, which may also be written ``images/a.jpg``."""
    found: dict[str, str] = {}
    missing: list[str] = []
    places = (Images(folder), Images(path.parent))
    for image in images:
        files = (place.find(image) for place in places)
        file = next((file for file in files if file is not None and file.is_relative_to(folder)), None)
        if file is None:
            missing.append(image)
        else:
            found[image] = file.relative_to(folder).as_posix()
    if missing:
        raise DataError(f"{path}: {_explain_missing(folder, missing)}")
    return found


def _explain_missing(folder: Path, missing: list[str]) -> str:
    there = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    wanted = missing[0].replace("\\", "/").removeprefix(f"{folder.name}/")
    alike = in_other_capitals(wanted, there)
    near = [alike] if alike else difflib.get_close_matches(wanted, there[:10000], 1, 0.7)
    hint = f"; did you mean {near[0]}?" if near else ""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"the image {missing[0]}{more} is not in {folder}{hint}"


def _splits(path: Path, captions: dict[str, dict[str, _Row]]) -> dict[str, str]:
    """The split of each image: from the file, which must then name one for every image, or else by the image's name."""
    named: dict[str, str] = {}
    bare: list[_Row] = []
    for name, held in captions.items():
        rows = list(held.values())
        said = {row.split: row for row in rows if row.split}
        if len(said) > 1:
            one, other = list(said.values())[:2]
            raise DataError(f"{other.where}: {name} is in {other.split}, but {one.where} puts it in {one.split}")
        if said:
            named[name] = next(iter(said))
        else:
            bare.append(rows[0])
    if not named:
        named = {name: split_of(name) for name in captions}
        if "train" not in named.values():
            raise DataError(f"{path}: no training images among so few; name a split in a third column")
    elif bare:
        raise DataError(f"{bare[0].where}: {bare[0].image} has no split but other images have; name one for each")
    return named
