"""Clips and feature stores as the arrays that a CRF is trained on: label sets, gold labels, batches and folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from captioner.data.clips import NODES, NULL, OTHER, Clip
from captioner.data.records import Names
from captioner.errors import DataError
from captioner.features.spec import Store

LabelSets = Mapping[str, Sequence[str]]
"""The labels of each node, by the node's name."""


@dataclass(frozen=True, eq=False)
class ClipArrays:
    """N clips as arrays; the clips of a video are consecutive rows, in order of time."""

    ids: list[str]
    videos: list[str]
    """The video of each clip."""
    features: np.ndarray
    """(N, D) float32."""
    gold: np.ndarray
    """(N, V) int64: index of each node's gold label, -1 where unknown."""

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: np.ndarray) -> ClipArrays:
        """The clips at ``rows`` (M,), in that order."""
        ids, videos = ([values[row] for row in rows] for values in (self.ids, self.videos))
        return ClipArrays(ids, videos, self.features[rows], self.gold[rows])

    @property
    def starts_video(self) -> np.ndarray:
        """(N,) bool: whether the clip is the first one of its video."""
        return np.array([row == 0 or name != self.videos[row - 1] for row, name in enumerate(self.videos)], bool)

    @property
    def labeled(self) -> np.ndarray:
        """(N,) bool: whether at least one gold label is known."""
        return np.asarray((self.gold >= 0).any(1))

    def batches(
        self, rows: np.ndarray, size: int, chain: bool, random: np.random.Generator | None
    ) -> Iterator[np.ndarray]:
        """``rows`` in batches of ``size``, shuffled by ``random`` unless it is None.

        With ``chain`` a batch holds whole videos: the fewest that reach ``size`` clips.
        """
        if not chain:
            rows = rows if random is None else random.permutation(rows)
            yield from (rows[start : start + size] for start in range(0, len(rows), size))
            return
        starts = np.flatnonzero(self.select(rows).starts_video)
        videos = [part for part in np.split(rows, starts) if len(part)]
        batch: list[np.ndarray] = []
        for index in np.arange(len(videos)) if random is None else random.permutation(len(videos)):
            batch.append(videos[index])
            if sum(map(len, batch)) >= size:
                yield np.concatenate(batch)
                batch = []
        if batch:
            yield np.concatenate(batch)


def clip_arrays(clips: Sequence[Clip], stores: Sequence[Store], labels: LabelSets) -> ClipArrays:
    """Arrays of the clips that have features in all ``stores``, sorted by video and time."""
    held = [Names(store.ids) for store in stores]
    chosen = [clip for clip in clips if all(clip.clip_id in ids for ids in held)]
    chosen.sort(key=lambda clip: (clip.video, clip.start, clip.end, clip.clip_id))
    ids = [clip.clip_id for clip in chosen]
    features = np.concatenate([store.get(ids) for store in stores], 1)
    return ClipArrays(ids, [clip.video for clip in chosen], features, gold_labels(chosen, labels))


def gold_labels(clips: Sequence[Clip], labels: LabelSets) -> np.ndarray:
    """(N, V) int64: index of each gold label; that of ``OTHER`` if it is not in the label set, -1 if unknown."""
    indices = [{label: index for index, label in enumerate(values)} for values in labels.values()]
    rows = [
        [index.get(label, index.get(OTHER, -1)) for index, label in zip(indices, clip.labels, strict=True)]
        if clip.labels
        else [-1] * len(indices)
        for clip in clips
    ]
    return np.array(rows, np.int64).reshape(-1, len(indices))


def label_sets(clips: Sequence[Clip]) -> dict[str, tuple[str, ...]]:
    """Labels of each node: ``NULL``, ``OTHER`` and those of the training clips, most frequent first."""
    known = [clip.labels for clip in clips if clip.split == "train" and clip.labels]
    if not known:
        raise DataError("no clip of split train has labels; python -m preprocess.tacos finds them in the sentences")
    sets = {}
    for v, node in enumerate(NODES):
        counts = Counter(labels[v] for labels in known)
        named = sorted(set(counts) - {NULL, OTHER}, key=lambda label: (-counts[label], label))
        sets[node] = (NULL, OTHER, *named)
    return sets


def group_folds(videos: Sequence[str], folds: int, seed: int) -> list[np.ndarray]:
    """Rows of the clips of each cross-validation fold; the clips of a video are all in one fold.

    ``videos`` names the video of each clip. Raises ``DataError`` unless there are at least as many videos as folds.
    """
    names = sorted(set(videos))
    if not 2 <= folds <= len(names):
        raise DataError(f"{folds} folds of {len(names)} training videos; choose 2 to {len(names)}")
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[place]: number % folds for number, place in enumerate(order)}
    return [np.flatnonzero([fold_of[video] == fold for video in videos]) for fold in range(folds)]
