"""Labeled videos: the record that every reader returns, and their division into train, val and test by group.

Videos of one group, such as those cut from one recording, look alike, so a model that has seen some of them knows the
others. Therefore a group is never divided among splits.

To add a data set, write a function ``(folder, number of the official split) -> list[LabeledVideo]`` and add one line to
``VIDEO_READERS``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from captioner.data.records import Labeled
from captioner.errors import DataError
from captioner.registry import resolve

VIDEO_READERS = {
    "folders": "captioner.data.readers.labeled_videos:read_folders",
    "tsv": "captioner.data.readers.labeled_videos:read_tsv",
    "ucf101": "captioner.data.readers.ucf101:read_ucf101",
    "hmdb51": "captioner.data.readers.hmdb51:read_hmdb51",
}
OFFICIAL = ("ucf101", "hmdb51")
"""Readers of data sets with three official splits; results on other divisions are not comparable."""


@dataclass(frozen=True)
class LabeledVideo(Labeled):
    """A video with its class; ``image_id`` is its id in a feature store, ``split`` is empty if none is given."""

    group: str = ""
    """The video's group, which is never divided among splits."""


def read_videos(
    format: str, root: str | Path, *, split: int = 1, folds: int = 0, dev_share: float = 0.0
) -> list[LabeledVideo]:
    """Read the videos of a data set, each in train, val or test.

    ``split`` is the number, from 1, of an official split or, with ``folds``, of the test fold. Without either, videos
    that name no split are for training. If the data set has no val videos, ``dev_share`` of the training videos of each
    class become val, in whole groups. Raises ``DataError`` for faulty files, for folds of data sets with official
    splits, and for groups that are in two splits.
    """
    if folds and format in OFFICIAL:
        raise DataError(f"{format} has official splits; other divisions of it are not comparable: set data.folds=0")
    videos: list[LabeledVideo] = resolve(VIDEO_READERS, format, "format of labeled videos", DataError)(
        Path(root), split
    )
    _check(videos, str(root))
    if folds:
        videos = _divide(videos, split, folds)
    videos = [replace(video, split=video.split or "train") for video in videos]
    if format != "hmdb51":  # its groups can only be guessed from the names
        _check_groups(videos, str(root))
    if dev_share and not any(video.split == "val" for video in videos):
        videos = _hold_out(videos, dev_share)
    return videos


def _check(videos: Sequence[LabeledVideo], where: str) -> None:
    if not videos:
        raise DataError(f"{where}: holds no videos")
    repeated = [name for name, count in Counter(video.image_id for video in videos).items() if count > 1]
    if repeated:
        raise DataError(f"{where}: the video {repeated[0]} is listed twice")
    if len({video.label for video in videos}) < 2:
        raise DataError(f"{where}: all videos are of one class, {videos[0].label}; a classifier needs two")


def _check_groups(videos: Sequence[LabeledVideo], where: str) -> None:
    split_of: dict[str, str] = {}
    for video in videos:
        if split_of.setdefault(video.group, video.split) != video.split:
            splits = f"{split_of[video.group]} and {video.split}"
            raise DataError(f"{where}: group {video.group} is in {splits}; a group must be in one split")


def _divide(videos: Sequence[LabeledVideo], fold: int, folds: int) -> list[LabeledVideo]:
    """Fold number ``fold`` as test, the others as train; a group goes to the fold with fewest videos of its classes."""
    if folds < 2 or not 1 <= fold <= folds:
        raise DataError(f"fold {fold} of {folds}: choose data.split from 1 to data.folds, and two folds or more")
    groups = _groups(videos)
    if len(groups) < folds:
        raise DataError(f"{len(groups)} groups cannot be divided into {folds} folds")
    counts = np.zeros((folds, len({video.label for video in videos})))
    labels = {label: number for number, label in enumerate(sorted({video.label for video in videos}))}
    fold_of = {}
    for name, members in sorted(groups.items(), key=lambda item: -len(item[1])):  # large groups first; stable
        mine = np.bincount([labels[video.label] for video in members], minlength=len(labels))
        fold_of[name] = int(np.lexsort((counts.sum(1), counts[:, mine > 0].sum(1)))[0])
        counts[fold_of[name]] += mine
    return [replace(video, split="test" if fold_of[video.group] == fold - 1 else "train") for video in videos]


def _hold_out(videos: Sequence[LabeledVideo], share: float) -> list[LabeledVideo]:
    """Make some training groups val, about ``share`` of each class; every class keeps at least one training group.

    The choice does not depend on the run's seed, so that runs are compared on the same val videos.
    """
    groups = _groups([video for video in videos if video.split == "train"])
    order = [list(groups)[i] for i in np.random.default_rng(0).permutation(len(groups))]
    left = Counter(label for name in order for label in {video.label for video in groups[name]})
    wanted = Counter(video.label for name in order for video in groups[name])
    taken: set[str] = set()
    held: Counter[str] = Counter()
    for label in sorted(wanted):
        for name in order:
            labels = Counter(video.label for video in groups[name])
            full = held[label] >= share * wanted[label]
            if full or name in taken or label not in labels or any(left[one] < 2 for one in labels):
                continue
            taken.add(name)
            held += labels
            left -= Counter(set(labels))
    if not taken:
        raise DataError("no group of training videos can be held out as dev; give more groups, or data.dev_share=0")
    return [replace(video, split="val") if video.group in taken else video for video in videos]


def _groups(videos: Sequence[LabeledVideo]) -> dict[str, list[LabeledVideo]]:
    groups = defaultdict(list)
    for video in videos:
        groups[video.group].append(video)
    return groups
