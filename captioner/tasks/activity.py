"""Recognize activities in videos: classifiers of sequences of frame features (Donahue et al. 2015, section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from captioner.config import CrossEntropyConfig, Experiment, within
from captioner.data.activity import read_videos
from captioner.data.augment import augment
from captioner.data.records import ClassNames
from captioner.errors import ConfigError, DataError, counted
from captioner.features.spec import FeatureSpec
from captioner.features.store import FeatureStore
from captioner.features.video_spec import VideoSpec
from captioner.models.sequence import SequenceClassifier, SequenceConfig
from captioner.tasks.base import StepLoss, Task

AT_ONCE = 256
"""Videos that are classified at a time, or read at a time from a store."""


@dataclass(frozen=True)
class ActivityDataConfig:
    """The labeled videos, their division into splits, and their features."""

    format: str = "folders"
    """The reader of the data set: a name in captioner.data.activity.VIDEO_READERS."""
    root: str = "."
    """Folder (or file, for tsv) that the reader opens."""
    split: int = 1
    """Number of the official split, from 1; with folds, number of the test fold."""
    folds: int = 0
    """Divide the videos into this many folds, in whole groups; 0 keeps the data set's own splits."""
    dev_share: float = 0.1
    """Share of the training videos that are held out as dev, in whole groups; unused if the data set has dev videos."""
    features: tuple[str, ...] = ()
    """Feature stores of the videos, made with captioner extract --frames; several are concatenated frame by frame."""
    features_mirrored: tuple[str, ...] = ()
    """The same stores, made with --mirror; training picks one or the other at random."""
    mirror: bool = False
    """Pixels only: mirror half of the clips at random."""
    shift: int = 0
    """Pixels only: shift clips at random by at most this many pixels in each direction."""

    def __post_init__(self) -> None:
        within("data.split", self.split, 1)
        within("data.folds", self.folds, 0)
        within("data.dev_share", self.dev_share, 0, 0.9)
        within("data.shift", self.shift, 0, 32)


@dataclass(frozen=True)
class ActivityConfig:
    """The configuration sections of the task ``activity``."""

    model: SequenceConfig = field(default_factory=SequenceConfig)
    data: ActivityDataConfig = field(default_factory=ActivityDataConfig)
    loss: CrossEntropyConfig = field(default_factory=CrossEntropyConfig)


@dataclass(frozen=True)
class ActivityBatch:
    """One process's share of a batch of B videos."""

    videos: Tensor
    """Features (B, T, D)."""
    starts: Tensor
    """Index of each clip's first frame in its video, (B,)."""
    labels: Tensor
    """Class indices, (B,)."""
    label_smoothing: float = 0.0

    def __len__(self) -> int:
        return len(self.videos)

    def to(self, device: torch.device) -> ActivityBatch:
        parts = {name: getattr(self, name).to(device) for name in ("videos", "starts", "labels")}
        return replace(self, **parts)


@dataclass
class ActivityData:
    """Everything that a run reads; equal in every process. Implements ``captioner.tasks.base.TrainingData``."""

    inputs: Sequence[VideoSpec]
    outputs: ClassNames
    config: ActivityConfig
    batch_size: int
    seed: int
    features: Tensor
    """Features (N, T, D) of all videos, in the stores' dtype."""
    mirrored: Tensor | None
    """The same for the mirrored videos."""
    labels: Tensor
    """Class indices, (N,)."""
    train_rows: Tensor
    dev_rows: Tensor
    """Rows of the dev videos; if none are held out, rows of training videos."""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return -(-len(self.train_rows) // self.batch_size)

    def batches(self, epoch: int, skip: int = 0, rank: int = 0, size: int = 1) -> Iterator[ActivityBatch]:
        """The batches of an epoch after the first ``skip``; process ``rank`` of ``size`` gets videos ``rank::size``.

        Randomness depends only on the seed, the epoch and the batch's number.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train_rows))
        for number, chosen in enumerate(np.array_split(order, len(self))):
            if number >= skip:
                yield self._batch(self.train_rows[torch.from_numpy(chosen)], (epoch, number), slice(rank, None, size))

    def _batch(self, rows: Tensor, place: tuple[int, int], mine: slice) -> ActivityBatch:
        """A random clip of each video in ``rows``, mirrored at random; only the videos ``mine`` are kept."""
        random = np.random.default_rng([self.seed, *place])
        data = self.config.data
        last = max(self.features.shape[1] - self.config.model.window, 0)
        starts = torch.from_numpy(random.integers(0, last + 1, len(rows)))[mine]
        flips = torch.from_numpy(random.random(len(rows)) < 0.5)[mine]
        shifts = torch.from_numpy(random.integers(-data.shift, data.shift + 1, (len(rows), 2)))[mine]
        rows = rows[mine]
        videos = self.features[rows]
        if self.mirrored is not None:
            videos = torch.where(flips[:, None, None], self.mirrored[rows], videos)
        videos = videos.float()
        if data.mirror or data.shift:
            videos = augment(videos, flips & data.mirror, shifts, flow=bool(self.inputs[0].flow))
        return ActivityBatch(videos, starts, self.labels[rows], self.config.loss.label_smoothing)


def load_activity(experiment: Experiment) -> ActivityData:
    """Load the videos and features of a run; raises ``ConfigError`` and ``DataError`` for missing or wrong ones."""
    config: ActivityConfig = experiment.config
    data, train = config.data, experiment.train
    stores = open_stores(data.features)
    videos = read_videos(data.format, data.root, split=data.split, folds=data.folds, dev_share=data.dev_share)
    unread = {name for store in stores for name in store.unfinished}  # damaged videos
    known = [video for video in videos if video.split != "test" and video.image_id not in unread]
    outputs = ClassNames(tuple(sorted({video.label for video in videos})))
    rows = {part: torch.tensor([i for i, v in enumerate(known) if v.split == part]) for part in ("train", "val")}
    if not len(rows["train"]):
        raise DataError(f"{data.root}: no video is for training")
    notes = [f"{counted(len(unread), 'video')} could not be read and are left out"] if unread else []
    if not len(rows["val"]):
        rows["val"] = rows["train"]
        notes.append("no dev videos: dev metrics are of the training videos, and say nothing of others")
    ids = [video.image_id for video in known]
    mirrored = [FeatureStore(path, mirrored=True) for path in data.features_mirrored]
    if mirrored and [store.spec for store in mirrored] != [store.spec for store in stores]:
        raise ConfigError("data.features_mirrored are not of the same features as data.features")
    return ActivityData(
        [video_spec(store) for store in stores],
        outputs,
        config,
        train.batch_size,
        train.seed,
        read_features(stores, ids),
        read_features(mirrored, ids) if mirrored else None,
        torch.tensor([outputs.number(video.label) for video in known]),
        rows["train"],
        rows["val"],
        notes,
    )


def open_stores(paths: Sequence[str]) -> list[FeatureStore]:
    """Open the feature stores of videos; raises ``ConfigError`` without any, or if their numbers of frames differ."""
    if not paths:
        raise ConfigError("data.features is empty: name the feature stores, made with captioner extract --frames")
    stores = [FeatureStore(path) for path in paths]
    for store in stores:
        if video_spec(store).frames != stores[0].spec.frames:
            counts = f"{stores[0].spec.frames} frames of a video, {store.path} {store.spec.frames}"
            raise ConfigError(f"{stores[0].path} has {counts}; extract both with the same --frames")
    return stores


def video_spec(store: FeatureStore) -> VideoSpec:
    """The specification of a store's features; raises ``ConfigError`` unless they are features of videos."""
    if not isinstance(store.spec, VideoSpec):
        raise ConfigError(f"{store.path}: features of images, not of videos; use captioner extract --frames")
    return store.spec


def read_features(stores: Sequence[FeatureStore], ids: Sequence[str]) -> Tensor:
    """Features (N, T, D) of ``ids``, concatenated along D over the stores; float16 if all stores are."""
    dtype = torch.float16 if all(store.dtype == "float16" for store in stores) else torch.float32
    size = sum(store.spec.dimension for store in stores)
    table = torch.empty(len(ids), stores[0].spec.frames, size, dtype=dtype)
    for first in range(0, len(ids), AT_ONCE):
        some = ids[first : first + AT_ONCE]
        parts = [torch.from_numpy(store.get(some)) for store in stores]
        table[first : first + len(some)] = torch.cat(parts, 2)
    return table


def build_classifier(config: ActivityConfig, inputs: Sequence[FeatureSpec], outputs: ClassNames) -> SequenceClassifier:
    """Build the classifier, with its initial weights."""
    return SequenceClassifier(config.model, sum(spec.dimension for spec in inputs), len(outputs))


def start_activity(experiment: Experiment, data: ActivityData, learner: Any) -> list[str]:
    """Set the classifier's statistics of the training features; returns lines for the log."""
    device = next(learner.parameters()).device
    learner.model.set_statistics(
        data.features[rows].float().to(device) for rows in torch.split(data.train_rows, AT_ONCE)
    )
    return data.notes


def activity_loss(learner: Any, batch: ActivityBatch) -> StepLoss:
    """Cross-entropy in nats, averaged over the frames of each clip and summed over the clips."""
    model: SequenceClassifier = learner.model
    videos = model.change(batch.videos)
    places = batch.starts[:, None] + torch.arange(min(model.config.window, videos.shape[1]), device=videos.device)
    clips = videos.gather(1, places[..., None].expand(-1, -1, videos.shape[2]))  # (B, W, D)
    logits = model(clips)  # (B, W or 1, C)
    labels = batch.labels[:, None].expand(logits.shape[:2])
    losses = functional.cross_entropy(
        logits.transpose(1, 2).float(), labels, label_smoothing=batch.label_smoothing, reduction="sum"
    )
    return StepLoss(losses / logits.shape[1], len(batch))


@torch.inference_mode()
def evaluate_activity(learner: Any, data: ActivityData, precision: str) -> dict[str, float]:
    """``accuracy``, the percentage of dev videos whose most probable class is correct, and ``dev_loss`` in nats."""
    learner.eval()
    device = next(learner.parameters()).device
    parts = [
        learner.model.predict(data.features[r].float().to(device)).cpu() for r in torch.split(data.dev_rows, AT_ONCE)
    ]
    probabilities, labels = torch.cat(parts), data.labels[data.dev_rows]
    right = probabilities.argmax(1) == labels
    loss = functional.nll_loss(probabilities.clamp(min=1e-12).log(), labels)
    return {"accuracy": 100 * float(right.float().mean()), "dev_loss": float(loss)}


def check_activity(experiment: Experiment) -> None:
    """Raise ``ConfigError`` for settings that exclude each other."""
    config: ActivityConfig = experiment.config
    if experiment.train.init_from:
        raise ConfigError("train.init_from: recognizers start from their features alone; leave it empty")
    if not config.data.dev_share and experiment.train.evaluate_every < experiment.train.epochs:
        raise ConfigError(
            "data.dev_share 0 leaves nothing to choose an epoch by: the last one is kept, so set "
            f"train.evaluate_every={experiment.train.epochs} like train.epochs"
        )
    if (config.data.mirror or config.data.shift) and config.model.front != "pixels":
        raise ConfigError("data.mirror and data.shift are for model.front pixels; use data.features_mirrored")


TASK = Task(
    name="activity",
    config=ActivityConfig,
    metrics={"accuracy": "max", "dev_loss": "min"},
    load_data=load_activity,
    build=build_classifier,
    loss=activity_loss,
    evaluate=evaluate_activity,
    start=start_activity,
    check=check_activity,
    unit="videos",
)
