"""HMDB-51 (Kuehne et al. 2011): 6,766 clips of 51 classes, with three official splits of 70 and 30 clips per class."""

from __future__ import annotations

from pathlib import Path

from captioner.data.activity import LabeledVideo
from captioner.data.records import Images, find_folder, read_lines
from captioner.errors import DataError, shorten

LISTS = ("", "testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "splits")
VIDEOS = ("hmdb51", "hmdb51_org", "videos")
PARTS = {"1": "train", "2": "test"}
"""Split by the number after a clip's name; clips with 0 are in neither."""
TAGS = 6
"""Number of fields at the end of a name that describe one clip; those before name the recording and the class."""


def read_hmdb51(root: Path, split: int) -> list[LabeledVideo]:
    """The clips of official split 1, 2 or 3: train and test.

    ``root`` holds the class folders, in ``hmdb51`` or directly, and the lists ``CLASS_test_split1.txt``, in any of the
    usual places. Raises ``DataError`` if they are missing.
    """
    if split not in (1, 2, 3):
        raise DataError(f"HMDB-51 has the official splits 1, 2 and 3; {split} is none of them")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that holds the clips of HMDB-51 and its lists")
    suffix = f"_test_split{split}.txt"
    lists = next((found for name in LISTS if (found := sorted((root / name).glob(f"*{suffix}")))), [])
    if not lists:
        raise DataError(f"{root}: no CLASS{suffix}; put the official lists here, testTrainMulti_7030_splits")
    files = Images(find_folder(root, VIDEOS))
    videos = []
    for path in lists:
        label = path.name.removesuffix(suffix)
        for number, line in enumerate(read_lines(path), start=1):
            fields = line.split()
            if len(fields) not in (0, 2) or fields[1:] not in ([], ["0"], ["1"], ["2"]):
                raise DataError(f"{path}, line {number}: expected NAME.avi and 0, 1 or 2, found {shorten(line)}")
            if fields and fields[1] in PARTS:
                name = f"{label}/{fields[0]}"
                group = Path(fields[0]).stem.rsplit("_", TAGS)[0]
                videos.append(LabeledVideo(name, files.find(name), label, PARTS[fields[1]], group))
    return videos
