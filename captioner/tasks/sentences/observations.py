"""Observations of training clips: another one at each step, mixed with gold labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captioner.crf.clips import gold_labels
from captioner.data.clips import Clip, read_clips, whole_clip
from captioner.errors import ConfigError
from captioner.features.label_predictions import LabelPredictionsStore, open_store
from captioner.tasks.sentences.config import ClipDataConfig

Stores = Sequence[LabelPredictionsStore]


def open_observations(config: ClipDataConfig, ids: Sequence[str], steps: int) -> Observations | None:
    """The observations of the clips ``ids`` for a run of ``steps`` steps; None if every step uses the same one.

    Raises ``ConfigError`` if gold labels would be mixed into anything but label predictions.
    """
    stores = [open_store(path) for path in config.features]
    labels = [store for store in stores if isinstance(store, LabelPredictionsStore)]
    if len(labels) < len(stores):
        if any(config.gold_share):
            raise ConfigError(
                "data.gold_share: gold labels are mixed into label predictions, FILE@map or FILE@marginals"
            )
        return None
    if any(list(store.ids) != list(labels[0].ids) for store in labels):
        raise ConfigError("data.features: label predictions of different clips cannot be combined; use one file")
    known = {clip.clip_id: clip for clip in read_clips(config.format, config.root)}
    rows = observed_rows(labels[0], [known[name] for name in ids], config)
    return Observations(labels, [known[name] for name in ids], config.gold_share, steps, rows)


def observed_rows(store: LabelPredictionsStore, clips: Sequence[Clip], config: ClipDataConfig) -> list[list[int]]:
    """Rows of ``store`` that may be drawn for each clip, by ``config.observe_by``.

    A clip of a single sentence (``CLIP#3``) has the observations of its clip unless it has its own. By labels, it has
    those of all training clips whose labels agree with its own on most nodes, since its clip's labels may differ.
    """
    known = store.predictions.observations
    own = [(known.get(clip.clip_id) or known[whole_clip(clip.clip_id)])[: config.observations] for clip in clips]
    if config.observe_by == "clip":
        return own
    root = Path(config.root)
    path = root if root.is_dir() else root.with_name("clips.jsonl")
    train = [clip for clip in read_clips(config.format, path) if clip.split == "train" and clip.clip_id in known]
    if not train:
        raise ConfigError(f"data.observe_by labels: no label predictions for a training clip of {path}")
    tuples = gold_labels(train, store.predictions.labels)  # (C, V)
    alike: dict[bytes, list[int]] = {}
    for place, labels in enumerate(gold_labels(clips, store.predictions.labels)):
        if clips[place].split != "train" or (labels < 0).any():
            continue
        if labels.tobytes() not in alike:
            common = (tuples == labels).sum(1)  # (C,)
            nearest = np.flatnonzero(common == common.max())
            alike[labels.tobytes()] = [row for n in nearest for row in known[train[n].clip_id][: config.observations]]
        own[place] = alike[labels.tobytes()]
    return own


class Observations:
    """Draws label predictions of training clips: of any of their observations, as one-hot vectors or probabilities.

    All stores give the same observation. The share s of the gold labels changes from ``shares[0]`` at step 0 to
    ``shares[1]`` at step ``steps``. Probabilities become (1 - s) p + s [gold label]; a MAP assignment is replaced by
    the gold labels with probability s, as in the scheduled sampling of Bengio et al. (arXiv 1506.03099). Clips without
    gold labels keep their predictions.
    """

    def __init__(
        self, stores: Stores, clips: Sequence[Clip], shares: Sequence[float], steps: int, found: Sequence[Sequence[int]]
    ) -> None:
        """``clips`` are the clips of the rows to draw for, ``found`` the rows of the stores for each of them."""
        self.stores = stores
        self.shares, self.steps = shares, steps
        self.counts = np.array([len(own) for own in found])  # (N,)
        self.first = self.counts.cumsum() - self.counts  # (N,): where each clip's part of ``rows`` begins
        self.rows = np.array([row for own in found for row in own])  # (sum of counts,): rows of the files
        self.gold = gold_labels(clips, stores[0].predictions.labels)  # (N, V)

    def __call__(self, rows: Tensor, step: int, random: np.random.Generator) -> Tensor:
        """Vectors (B, sum of D) float32 for rows (B,) at a step of the run."""
        clips = rows.numpy()
        which, chance = random.random((2, len(clips)))  # (B,) each
        share = self.shares[0] + (self.shares[1] - self.shares[0]) * min(step / self.steps, 1.0)
        drawn = self.rows[self.first[clips] + (which * self.counts[clips]).astype(np.int64)]
        known = (self.gold[clips] >= 0).all(1)
        gold = self._one_hot(clips)
        parts = []
        for store in self.stores:
            weight = (known * (chance < share if store.kind == "map" else share))[:, None]  # (B, 1)
            parts.append((1 - weight) * store.vectors[drawn] + weight * gold)
        return torch.from_numpy(np.concatenate(parts, 1, dtype=np.float32))

    def _one_hot(self, clips: np.ndarray) -> np.ndarray:
        """Gold labels (B, D) as a MAP assignment."""
        sizes = [len(labels) for labels in self.stores[0].predictions.labels.values()]
        places = np.maximum(self.gold[clips], 0) + np.cumsum([0, *sizes[:-1]])
        vectors = np.zeros((len(clips), sum(sizes)), np.float32)
        np.put_along_axis(vectors, places, 1, 1)
        return vectors
