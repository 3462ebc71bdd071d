"""Records that readers of data sets return, ``Captioned`` and ``Labeled`` images, and the names of classes."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from captioner.errors import DataError, shorten
from captioner.files import read_text

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
class Captioned:
    """An image with its captions."""

    image_id: str
    """The image's id in a feature store: its path below the images' folder, with suffix."""
    path: Path | None
    """The image file; None if it is not on disk (its features may be)."""
    captions: tuple[str, ...]
    split: str
    """train, val or test."""
    number: int | str | None = None
    """The data set's own id, used in COCO results: usually a number, but a string is valid too."""


@dataclass(frozen=True)
class Labeled:
    """An image with its class."""

    image_id: str
    """As in ``Captioned``."""
    path: Path | None
    """As in ``Captioned``."""
    label: str
    """Name of the class."""
    split: str
    """train, val or test."""


@dataclass(frozen=True)
class ClassNames:
    """Names of classes by index: the outputs of a classifier. Raises ``DataError`` if there are none or one repeats."""

    kind: ClassVar[str] = "classes"

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names:
            raise DataError("there are no class names")
        repeated = [name for number, name in enumerate(self.names) if name in self.names[:number]]
        if repeated:
            raise DataError(f"the class name {shorten(repeated[0])} occurs twice")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, number: int) -> str:
        return self.names[number]

    def number(self, name: str) -> int:
        """The number of class ``name``; ``DataError`` if it is not one of them."""
        try:
            return self.names.index(name)
        except ValueError:
            raise DataError(f"no class {shorten(name)} among the {len(self)} classes") from None

    def to_list(self) -> list[str]:
        """The names in order, as a JSON value."""
        return list(self.names)

    @classmethod
    def from_list(cls, names: Sequence[str]) -> ClassNames:
        """The inverse of ``to_list``."""
        return cls(tuple(names))


def split_name(name: str, where: str) -> str:
    """train, val or test for any usual spelling (dev, restval, ...); else raises ``DataError``, naming ``where``."""
    found = SPLIT_NAMES.get(name.strip().lower())
    if found is None:
        raise DataError(f"{where}: unknown split {shorten(name)}; use train, val or test")
    return found


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file without line ends; a byte-order mark and Windows line ends are removed.

    Only newlines separate lines: a caption may hold U+2028 and other characters at which ``str.splitlines`` breaks.
    """
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_json(path: Path) -> Any:
    """The value of a JSON file in UTF-8, with or without a byte-order mark."""
    return parse_json(read_text(path), str(path), lines=True)


def parse_json(text: str, where: str, lines: bool = False) -> Any:
    """Parse JSON; errors are a ``DataError`` that starts with ``where``.

    With ``lines`` they also name the line of ``text``.
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # lone surrogates can be neither printed nor written
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if lines else ""
        raise DataError(f"{where}{line}: not valid JSON: {error.msg} at character {error.colno}") from error
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise DataError(f"{where}: not valid JSON: {half} is half a character; write the whole character") from error
    except RecursionError as error:
        raise DataError(f"{where}: not valid JSON: nested too deeply") from error
    except ValueError as error:  # Python refuses numbers of thousands of digits
        raise DataError(f"{where}: not valid JSON: a number with too many digits") from error
    return value


def find_file(root: Path, names: tuple[str, ...], what: str) -> Path:
    """The first of ``names`` that is a file below ``root``; raises ``DataError``, which lists ``names``, if none is."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds the {what}")
    for name in names:
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root}: no {what} here; looked for {', '.join(names)}")


def find_folder(root: Path, names: tuple[str, ...]) -> Path:
    """The first of ``names`` that is a folder below ``root``; ``root`` itself if none is."""
    return next((root / name for name in names if (root / name).is_dir()), root)


class Images:
    """The images below a folder, by their names as ``same_name`` compares them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path | None:
        """The file called ``name``, a path below the folder; None if it does not exist or leads out of the folder."""
        parts = PurePosixPath(name).parts
        if parts[:1] == ("/",) or ".." in parts:
            return None
        path = self.folder / name
        if os.path.isfile(path):  # False, not an error, for a name that no file can have
            return path
        if name.isascii():
            return None
        path = self.folder
        for part in parts:
            path /= self._listing(path).get(same_name(part), part)
        return path if os.path.isfile(path) else None

    def _listing(self, folder: Path) -> dict[str, str]:
        if folder not in self._listed:
            try:
                names = os.listdir(folder)
            except (OSError, ValueError):  # no such folder, or an invalid name
                names = []
            self._listed[folder] = {same_name(name): name for name in names}
        return self._listed[folder]


def same_name(name: str) -> str:
    """``name`` in Unicode's composed form (NFC): an accented letter is one character; on a Mac's disk it may be two."""
    return unicodedata.normalize("NFC", name)


class Names:
    """Names that are found as they are spelled, or else by ``same_name``."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def __contains__(self, name: str) -> bool:
        return name in self._names or self._others(name) != []

    def find(self, name: str) -> str | None:
        """The spelling of ``name`` here, or None; raises ``DataError`` if several other names match."""
        if name in self._names:
            return name
        others = self._others(name)
        if len(others) > 1:
            raise DataError(f"{name} may be {len(others)} names that encode accents differently; use one exactly")
        return others[0] if others else None

    def _others(self, name: str) -> list[str]:
        return [] if name.isascii() else self._same.get(same_name(name), [])

    @cached_property
    def _same(self) -> dict[str, list[str]]:
        same: dict[str, list[str]] = {}
        for name in self._names:
            if not name.isascii():
                same.setdefault(same_name(name), []).append(name)
        return same


def in_other_capitals(name: str, names: Iterable[str]) -> str | None:
    """The first of ``names`` that differs from ``name`` only in capitals."""
    folded = same_name(name).casefold()
    return next((one for one in names if same_name(one).casefold() == folded), None)


def distinct(records: Sequence[Captioned], where: str) -> list[Captioned]:
    """``records`` with unique ids: if images share a file name, their numbers are appended (``a.jpg#7``).

    Raises ``DataError`` if ids are not unique even with numbers.
    """
    names = Counter(record.image_id for record in records)
    found = [
        replace(record, image_id=f"{record.image_id}#{record.number}")
        if names[record.image_id] > 1 and record.number is not None
        else record
        for record in records
    ]
    repeated = next((name for name, count in Counter(one.image_id for one in found).items() if count > 1), None)
    if repeated is not None:
        raise DataError(f"{where}: two images are called {repeated}; give each its own name or id")
    return found


def of_split(records: list[Captioned], split: str) -> list[Captioned]:
    """The records of ``split`` (any usual spelling); raises ``DataError`` if there are none."""
    wanted = split_name(split, "--split")
    chosen = [record for record in records if record.split == wanted]
    if not chosen:
        counts = ", ".join(f"{name} {sum(r.split == name for r in records)}" for name in SPLITS)
        raise DataError(f"no images in split {wanted}; the data set has: {counts}")
    return chosen


def bare_name(name: str) -> str:
    """An image's name without folder and suffix, a number without leading zeros: ``9`` for ``000000000009.jpg``."""
    stem = PurePosixPath(name).stem
    return str(int(stem)) if stem.isdecimal() else stem
