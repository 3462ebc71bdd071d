"""UCF-101 (Soomro et al. 2012): 13,320 clips of 101 classes, with three official pairs of lists."""

from __future__ import annotations

import re
from pathlib import Path

from captioner.data.activity import LabeledVideo
from captioner.data.records import Images, find_folder, read_lines
from captioner.errors import DataError, shorten

NAME = re.compile(r"v_([A-Za-z]+)_(g\d+)_c\d+\.\w+")
"""Class and group of a clip's file name."""
LISTS = ("", "ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "splits")
VIDEOS = ("UCF-101", "videos")
NO_RANDOM_SPLIT = (
    "the clips of a group were cut from one video, so that a random split tests what was trained on: one published "
    "model reaches 65.9 % on its own official split, and 99.6 % on others, whose test clips it was trained on"
)


def read_ucf101(root: Path, split: int) -> list[LabeledVideo]:
    """The clips of official split 1, 2 or 3: train and test.

    ``root`` holds the folder ``UCF-101`` of class folders and the lists (``trainlist01.txt``, ...), in any of the usual
    places. Raises ``DataError`` if the lists are missing: a random split is refused.
    """
    if split not in (1, 2, 3):
        raise DataError(f"UCF-101 has the official splits 1, 2 and 3; {split} is none of them")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that holds UCF-101 and its lists")
    folder = next((root / name for name in LISTS if (root / name / f"trainlist0{split}.txt").is_file()), None)
    if folder is None:
        raise DataError(
            f"{root}: no trainlist0{split}.txt; put the official lists (UCF101TrainTestSplits) here. "
            f"A random split is refused: {NO_RANDOM_SPLIT}"
        )
    files = Images(find_folder(root, VIDEOS))
    found = []
    for part, prefix in (("train", "trainlist"), ("test", "testlist")):
        path = folder / f"{prefix}0{split}.txt"
        for number, line in enumerate(read_lines(path), start=1):
            if line.strip():
                found.append(_video(line.split()[0], part, files, f"{path}, line {number}"))
    return found


def _video(name: str, split: str, files: Images, where: str) -> LabeledVideo:
    """The clip called CLASS/v_CLASS_gGG_cCC.avi."""
    label, _, file = name.partition("/")
    parts = NAME.fullmatch(file)
    if parts is None:
        raise DataError(f"{where}: expected CLASS/v_CLASS_g01_c01.avi, found {shorten(name)}")
    return LabeledVideo(name, files.find(name), label, split, f"{label} {parts[2]}")
