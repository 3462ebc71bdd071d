"""From clips and feature stores to arrays, label sets, batches and folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.crf.clips import ClipArrays, clip_arrays, gold_labels, group_folds, label_sets
from captioner.data.clips import NODES, NULL, OTHER, Clip
from captioner.errors import DataError
from captioner.features.spec import FeatureSpec, Store


class FakeStore:
    """Features in memory."""

    path = Path("fake")
    weights_digest = ""
    dtype = "float32"
    unfinished: Sequence[str] = ()

    def __init__(self, features: dict[str, list[float]]) -> None:
        self.features = features
        self.ids = list(features)
        self.spec = FeatureSpec("fake", len(next(iter(features.values()))))

    def get(self, ids: Sequence[str]) -> np.ndarray:
        return np.array([self.features[name] for name in ids], np.float32)

    def summary(self) -> dict[str, Any]:
        return {}


def clip(clip_id: str, video: str, start: float, labels: str | None = None, split: str = "train") -> Clip:
    return Clip(clip_id, video, start, start + 1, ("A.",), split, labels=tuple(labels.split()) if labels else None)


def test_clips_are_ordered_by_time_and_features_are_concatenated() -> None:
    """Would catch a chain over clips in the order of the file, and features of one clip at another."""
    clips = [clip("b2", "b", 5), clip("a1", "a", 1), clip("b1", "b", 3), clip("lost", "a", 0)]
    one: Store = FakeStore({"a1": [1], "b1": [2], "b2": [3]})
    two: Store = FakeStore({"lost": [9, 9], "b2": [30, 31], "b1": [20, 21], "a1": [10, 11]})
    arrays = clip_arrays(clips, [one, two], dict.fromkeys(NODES, (NULL, OTHER)))
    assert (arrays.ids, arrays.videos) == (["a1", "b1", "b2"], ["a", "b", "b"])
    assert arrays.features.tolist() == [[1, 10, 11], [2, 20, 21], [3, 30, 31]]
    assert arrays.starts_video.tolist() == [True, True, False] and not arrays.labeled.any()


def test_label_sets_come_from_training_clips() -> None:
    """Would catch labels of dev clips, and an order that depends on the order of the file."""
    clips = [clip("1", "a", 0, "cut - fig - -"), clip("2", "a", 1, "cut <other> kiwi - -"), clip("3", "a", 2)]
    clips.append(clip("4", "b", 0, "wash - plum - -", "val"))
    sets = label_sets(clips)
    assert list(sets) == list(NODES) and sets == label_sets(clips[::-1])
    assert sets["activity"] == (NULL, OTHER, "cut") and sets["object"] == (NULL, OTHER, "fig", "kiwi")
    with pytest.raises(DataError, match="no clip of split train has labels"):
        label_sets([replace(one, split="test") for one in clips])


def test_gold_labels_that_are_not_in_the_label_set() -> None:
    """Would catch an unknown label read as another one: it is OTHER, or unknown where the set has no OTHER."""
    sets = {"activity": (NULL, OTHER, "cut"), **dict.fromkeys(NODES[1:], (NULL, "fig"))}
    gold = gold_labels([clip("1", "a", 0, "fry - kiwi fig -"), clip("2", "a", 1)], sets)
    assert gold.tolist() == [[1, 0, -1, 1, 0], [-1] * 5] and gold.dtype == np.int64
    assert gold_labels([], sets).shape == (0, 5)


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=20), st.integers(2, 4), st.integers(0, 3))
def test_folds_partition_whole_videos(videos: list[str], folds: int, seed: int) -> None:
    """Would catch a clip in two folds or in none, and a video in two folds."""
    if len(set(videos)) < folds:
        with pytest.raises(DataError, match=f"{folds} folds of {len(set(videos))} training videos"):
            group_folds(videos, folds, seed)
        return
    parts = group_folds(videos, folds, seed)
    assert len(parts) == folds and all(len(rows) for rows in parts)
    assert sorted(int(row) for rows in parts for row in rows) == list(range(len(videos)))
    assert sum(len({videos[row] for row in rows}) for rows in parts) == len(set(videos))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 5), st.booleans(), st.booleans())
def test_batches_hold_each_clip_once(counts: list[int], size: int, chain: bool, shuffled: bool) -> None:
    """Would catch a video that is torn apart in a chain, or clips that are lost by shuffling."""
    videos = [str(video) for video, count in enumerate(counts) for _ in range(count)]
    clips = ClipArrays(videos, videos, np.zeros((len(videos), 1), np.float32), np.zeros((len(videos), 1), np.int64))
    random = np.random.default_rng(0) if shuffled else None
    batches = [rows.tolist() for rows in clips.batches(np.arange(len(videos)), size, chain, random)]
    assert sorted(row for rows in batches for row in rows) == list(range(len(videos)))
    assert shuffled or [row for rows in batches for row in rows] == list(range(len(videos)))
    if chain:
        assert sum(len({videos[row] for row in rows}) for rows in batches) == len(counts)
        assert all(len(rows) >= size for rows in batches[:-1])
    else:
        assert all(len(rows) == size for rows in batches[:-1])
