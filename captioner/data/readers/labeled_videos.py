"""Your own videos: a folder for each class, or a table that lists them (docs/recognize.md)."""

from __future__ import annotations

from pathlib import Path

from captioner.data.activity import LabeledVideo
from captioner.data.images import ImageFile, find_named
from captioner.data.readers.ucf101 import NAME, NO_RANDOM_SPLIT
from captioner.data.records import Images, read_lines, split_name
from captioner.data.video import VIDEOS
from captioner.errors import DataError, shorten

GROUPS = "groups.tsv"
COLUMNS = ("video", "label", "split", "group")


def read_folders(root: Path, split: int) -> list[LabeledVideo]:
    """Videos below ``root``, each labeled with the top-level folder that contains it; none has a split.

    ``groups.tsv`` beside the folders, if there is one, has VIDEO<tab>GROUP on each line, for every video; otherwise
    each video is a group of its own. ``split`` is not used. Raises ``DataError`` for videos without a class or group,
    and for UCF-101, whose groups must be known.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that holds a folder of videos for each class")
    found = [file for file in find_named([str(root)], kind=VIDEOS) if isinstance(file, ImageFile)]
    loose = [file.id for file in found if "/" not in file.id]
    if loose:
        raise DataError(f"{root}: {shorten(loose[0])} is in no class; put it into a folder named as its class")
    groups = _read_groups(root / GROUPS) if (root / GROUPS).exists() else None
    if groups is None and any(NAME.fullmatch(file.path.name) for file in found):
        raise DataError(f"{root}: these are clips of UCF-101: use format ucf101, since {NO_RANDOM_SPLIT}")
    missing = [file.id for file in found if groups is not None and file.id not in groups]
    if missing:
        raise DataError(f"{root / GROUPS}: no group for {shorten(missing[0])}; give every video one")
    return [
        LabeledVideo(file.id, file.path, file.id.partition("/")[0], "", groups[file.id] if groups else file.id)
        for file in found
    ]


def read_tsv(root: Path, split: int) -> list[LabeledVideo]:
    """The videos of a table whose first line names its columns: video, label and, optionally, split and group.

    ``root`` is the file, or a folder with ``videos.tsv``; ``video`` is a path below its folder. An empty split means
    train; a video with an empty group is its own group. ``split`` is not used. Raises ``DataError`` for a faulty line.
    """
    path = root / "videos.tsv" if root.is_dir() else root
    lines = read_lines(path)
    header = [name.strip() for name in lines[0].split("\t")] if lines else []
    unknown = [name for name in header if name not in COLUMNS]
    if header[:2] != ["video", "label"] or unknown or len(set(header)) < len(header):
        raise DataError(f"{path}, line 1: expected the columns {', '.join(COLUMNS)}, at least the first two, by tabs")
    files, videos = Images(path.parent), []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        where, cells = f"{path}, line {number}", line.split("\t")
        if len(cells) != len(header) or not cells[0].strip() or not cells[1].strip():
            raise DataError(f"{where}: expected {', '.join(header)}, separated by tabs, found {shorten(line)}")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        part = split_name(row["split"], where) if row.get("split") else ""
        name = row["video"]
        videos.append(LabeledVideo(name, files.find(name), row["label"], part, row.get("group") or name))
    return videos


def _read_groups(path: Path) -> dict[str, str]:
    """Group by video."""
    groups: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        name, _, group = (part.strip() for part in line.partition("\t"))
        if line.strip() and not (name and group):
            raise DataError(f"{path}, line {number}: expected VIDEO<tab>GROUP, found {shorten(line)}")
        if line.strip() and groups.setdefault(name, group) != group:
            raise DataError(f"{path}, line {number}: {shorten(name)} is in two groups")
    return groups
