"""What a run learns from: vocabulary, caption batches, and the images behind them (features, files or none)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from captioner.checkpoint import load_checkpoint
from captioner.config import DataConfig
from captioner.data import Record, read_dataset, read_sentences
from captioner.data.batching import CaptionBatches
from captioner.errors import ConfigError, DataError
from captioner.experiment import Experiment
from captioner.features.label_predictions import open_store
from captioner.features.spec import FeatureSpec, Store
from captioner.text.tokenizers import tokenize
from captioner.text.vocabulary import Vocabulary

READ_AT_ONCE = 4096  # rows taken from a feature store in one go
DEV_SHARE = 0.02  # of the sentences of a text-only run, kept for the dev loss
DEV_MOST = 2000
DEV_BATCH = 128


@dataclass(frozen=True)
class Step:
    """One optimizer step's data for this process: its rows of the global batch, and the whole batch's token count."""

    rows: Tensor
    """The images' numbers, (B,)."""
    images: Tensor | None
    """Features (B, D), prepared images (B, 3, S, S), or None for text."""
    inputs: Tensor
    """Words from START on, (B, T)."""
    targets: Tensor
    """Words up to END, (B, T), PAD behind."""
    tokens: int
    """Real targets of the global batch."""
    advantages: Tensor | None = None
    """Of captions that were drawn from the model, (B,): what each earned more than the others of its image."""
    reward: float = 0.0
    """Sum of the rewards of all captions drawn for the global batch."""
    captions: int = 0
    """Captions drawn for the global batch."""


class Images(Protocol):
    """What the model sees of images, numbered by row."""

    def stream(self, rows: Sequence[Tensor], flips: Sequence[Tensor] | None = None) -> Iterator[Tensor | None]:
        """One tensor for each batch of rows (B,); ``flips`` (B,) of bool say which images are mirrored, None none."""
        ...


class Nothing:
    """Text alone."""

    def stream(self, rows: Sequence[Tensor], flips: Sequence[Tensor] | None = None) -> Iterator[None]:
        return iter([None] * len(rows))


class Features:
    """Cached features (N, D), and perhaps those of the mirrored images, held in memory in the store's own type.

    Those that only the teachers read stand behind the model's own.
    """

    def __init__(self, features: Tensor, mirrored: Tensor | None = None) -> None:
        self.features = features
        self.mirrored = mirrored

    def stream(self, rows: Sequence[Tensor], flips: Sequence[Tensor] | None = None) -> Iterator[Tensor]:
        for i, wanted in enumerate(rows):
            taken = self.features[wanted]
            if self.mirrored is not None and flips is not None:
                taken = torch.where(flips[i][:, None], self.mirrored[wanted], taken)
            yield taken.float()


@dataclass
class Material:
    """Everything that a run reads; the same in every process."""

    vocabulary: Vocabulary
    batches: CaptionBatches
    dev_batches: CaptionBatches
    images: Images
    seed: int
    train_rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Rows of the training images, for the features' statistics."""
    dev_rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Rows of the dev images; ``dev_batches`` count within these."""
    references: dict[str, list[str]] = field(default_factory=dict)
    """Captions of each dev image, in the order of ``dev_rows``; empty for text."""
    train_references: dict[int, list[list[str]]] = field(default_factory=dict)
    """Tokens of each training image's captions by row; only where drawn captions are compared with them."""
    backbones: list[FeatureSpec] = field(default_factory=list)
    feature_size: int = 1

    def steps(self, epoch: int, skip: int, rank: int = 0, size: int = 1) -> Iterator[Step]:
        """The steps of an epoch after the first ``skip``; process ``rank`` of ``size`` gets rows ``rank::size``.

        What is mirrored depends on the seed, the epoch and the batch's number alone, so that a resumed run and one on
        several processes see the same.
        """
        batches = list(islice(self.batches.epoch(epoch), skip, None))
        mine = slice(rank, None, size)
        flips = [self._flips(epoch, skip + i, len(batch.rows))[mine] for i, batch in enumerate(batches)]
        images = self.images.stream([batch.rows[mine] for batch in batches], flips)
        for batch, seen in zip(batches, images, strict=True):
            yield Step(batch.rows[mine], seen, batch.inputs[mine], batch.targets[mine], batch.tokens)

    def _flips(self, epoch: int, number: int, count: int) -> Tensor:
        """Which of ``count`` images are mirrored, (count,) of bool."""
        return torch.from_numpy(np.random.default_rng([self.seed, epoch, number, 1]).random(count) < 0.5)


def read_material(experiment: Experiment) -> Material:
    """Read the data that the configuration names; ``DataError`` or ``FeatureStoreError`` says what is missing."""
    return _read_text(experiment) if experiment.data.text else _read_captions(experiment)


def _read_text(experiment: Experiment) -> Material:
    data, train = experiment.data, experiment.train
    sentences = [tokenize(sentence) for sentence in read_sentences(data.text)]
    if len(sentences) < 2:
        raise DataError(f"{data.text}: one sentence is not enough; some are kept to measure the dev loss")
    order = np.random.default_rng(0).permutation(len(sentences))  # the same dev sentences whatever the seed
    held = min(DEV_MOST, max(1, round(DEV_SHARE * len(sentences))))
    dev = [sentences[i] for i in order[:held]]
    rest = [sentences[i] for i in order[held:]]
    vocabulary = _vocabulary(data, data.vocabulary_from, rest)
    stores = [open_store(path) for path in data.features]  # only their size, for model.image = 0
    return Material(
        vocabulary,
        _batches(rest, [0] * len(rest), vocabulary, data, train.batch_size, train.seed),
        _batches(dev, [0] * len(dev), vocabulary, data, DEV_BATCH, 0),
        Nothing(),
        train.seed,
        feature_size=sum(store.spec.dimension for store in stores) or 1,
    )


def _read_captions(experiment: Experiment) -> Material:
    data, train = experiment.data, experiment.train
    records = read_dataset(data.format, data.root)
    stores = data.features + train.teacher_features
    unread = {name for path in stores for name in open_store(path).unfinished}  # damaged images
    chosen = [r for r in records if r.split in ("train", "val") and r.captions and r.image_id not in unread]
    rows = {split: [i for i, r in enumerate(chosen) if r.split == split] for split in ("train", "val")}
    for split, found in rows.items():
        if not found:
            raise DataError(f"{data.root}: no captioned image is in split {split}; training needs train and val")
    words = {i: [tokenize(caption) for caption in record.captions] for i, record in enumerate(chosen)}
    pairs = {split: [(caption, i) for i in found for caption in words[i]] for split, found in rows.items()}
    captions, owners = [c for c, _ in pairs["train"]], [i for _, i in pairs["train"]]
    critical, batch_size = train.objective == "self_critical", train.batch_size
    vocabulary = _vocabulary(data, train.init_from if critical else data.vocabulary_from, captions)
    if critical:  # captions will be drawn: batches are of images, each once, with a caption that has no words yet
        captions, owners, batch_size = [[] for _ in rows["train"]], rows["train"], batch_size // train.samples
    place = {row: n for n, row in enumerate(rows["val"])}
    dev_captions, dev_owners = [c for c, _ in pairs["val"]], [place[i] for _, i in pairs["val"]]
    images, backbones, size = _images(experiment, chosen)
    return Material(
        vocabulary,
        _batches(captions, owners, vocabulary, data, batch_size, train.seed),
        _batches(dev_captions, dev_owners, vocabulary, data, DEV_BATCH, 0),
        images,
        train.seed,
        train_rows=torch.tensor(rows["train"]),
        dev_rows=torch.tensor(rows["val"]),
        references={chosen[i].image_id: list(chosen[i].captions) for i in rows["val"]},
        train_references={i: words[i] for i in rows["train"]} if critical else {},
        backbones=backbones,
        feature_size=size,
    )


def _images(experiment: Experiment, records: list[Record]) -> tuple[Images, list[FeatureSpec], int]:
    """The images of ``records`` by row, the backbones that made their features, and the feature's size.

    When fine-tuning the backbone and the size are not known yet: none and 0.
    """
    if experiment.train.finetune:
        from captioner.train.finetune import ImageFiles

        train = experiment.train
        return ImageFiles([_file(record) for record in records], train.workers, train.mirror), [], 0
    data, train = experiment.data, experiment.train
    if not data.features:
        raise ConfigError("data.features is empty: name the feature stores, made with `captioner extract`")
    ids = [record.image_id for record in records]
    stores = [open_store(path) for path in data.features]
    features = _read_features([*stores, *map(open_store, train.teacher_features)], ids)
    mirrored = None
    if data.features_mirrored:
        paths = data.features_mirrored + train.teacher_features_mirrored
        mirrored = _read_features([open_store(path, mirrored=True) for path in paths], ids)
        if mirrored.shape != features.shape:
            raise ConfigError(
                f"features_mirrored give {mirrored.shape[1]} numbers, features {features.shape[1]}"
                + (", those of the teachers counted in" if train.teacher_features else "")
            )
    return Features(features, mirrored), [store.spec for store in stores], sum(store.spec.dimension for store in stores)


def _file(record: Record) -> Path:
    if record.path is None:
        raise DataError(f"{record.image_id}: the image is not on this disk; fine-tuning needs the files")
    return record.path


def _read_features(stores: Sequence[Store], ids: list[str]) -> Tensor:
    """Features (len(ids), D) of all stores side by side; float16 if every store is, which halves the memory."""
    half = all(store.dtype == "float16" for store in stores)
    width = sum(store.spec.dimension for store in stores)
    table = torch.empty(len(ids), width, dtype=torch.float16 if half else torch.float32)
    column = 0
    for store in stores:
        for first in range(0, len(ids), READ_AT_ONCE):
            part = torch.from_numpy(store.get(ids[first : first + READ_AT_ONCE]))
            table[first : first + len(part), column : column + store.spec.dimension] = part
        column += store.spec.dimension
    return table


def _vocabulary(data: DataConfig, source: str, captions: list[list[str]]) -> Vocabulary:
    """That of the checkpoint ``source`` if there is one, else the words of ``captions``."""
    return load_checkpoint(source).vocabulary if source else Vocabulary.build(captions, data.min_count)


def _batches(
    captions: list[list[str]], rows: list[int], vocabulary: Vocabulary, data: DataConfig, size: int, seed: int
) -> CaptionBatches:
    ids = [vocabulary.encode(caption) for caption in captions]
    return CaptionBatches(ids, rows, size, seed, max_length=data.max_length)
