"""Training data of sentence decoders: vocabulary, batches of sentences, and features, image files or no images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone
from captioner.checkpoint import load_checkpoint
from captioner.config import Experiment
from captioner.data import Captioned, read_dataset, read_sentences
from captioner.data.batching import CaptionBatches
from captioner.decoding.config import DecodingConfig
from captioner.errors import ConfigError, DataError
from captioner.features.shards import ShardedStore
from captioner.features.spec import FeatureSpec, Store
from captioner.seeds import mix_seeds
from captioner.tasks.sentences.config import CaptioningConfig, ClipCaptioningConfig, FinetuneConfig
from captioner.tasks.sentences.image_files import ImageFiles
from captioner.tasks.sentences.streamed import Stores, StreamedFeatures
from captioner.text.tokenizers import tokenize
from captioner.text.vocabulary import PAD, Vocabulary

READ_AT_ONCE = 4096  # rows read from a feature store at a time
DEV_SHARE = 0.02  # share of the sentences that a text-only run holds out for the dev loss
DEV_MOST = 2000
DEV_BATCH = 128
STATISTICS_FROM = 20_000  # images for the statistics, if not all features are in memory


@dataclass(frozen=True)
class SentenceBatch:
    """One process's share of a batch of B sentences of up to T tokens."""

    rows: Tensor
    """Row of each sentence's image, (B,)."""
    images: Mapping[str, Tensor]
    """``input``: the learner's input, features (B, D) or prepared images (B, 3, S, S); ``teacher``: features (B, D')
    for the teachers, if they differ. Empty for text."""
    inputs: Tensor
    """Token ids, (B, T), starting with ``START``."""
    targets: Tensor
    """Token ids, (B, T), ending with ``END``, then ``PAD``."""
    seed: int = 0
    """Seed for sampling in this step, different in each step and process."""

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def tokens(self) -> int:
        """Number of targets that are not padding."""
        return int((self.targets != PAD).sum())

    def to(self, device: torch.device) -> SentenceBatch:
        """The batch on ``device``; rows stay on the CPU."""
        images = {name: tensor.to(device) for name, tensor in self.images.items()}
        return replace(self, images=images, inputs=self.inputs.to(device), targets=self.targets.to(device))


class Images(Protocol):
    """The model's inputs from images, by row."""

    def stream(self, rows: Sequence[Tensor], flips: Sequence[Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
        """Tensors by name for each batch of rows (B,); ``flips`` (B,) bool says which images are mirrored."""
        ...


class NoImages:
    """No images, for text alone."""

    def stream(self, rows: Sequence[Tensor], flips: Sequence[Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
        return iter([{} for _ in rows])


class CachedFeatures:
    """Cached features by name, (N, D) each, and optionally those of the mirrored images, in the stores' dtype."""

    def __init__(self, features: Mapping[str, Tensor], mirrored: Mapping[str, Tensor] | None = None) -> None:
        self.features = features
        self.mirrored = mirrored

    def stream(self, rows: Sequence[Tensor], flips: Sequence[Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
        for i, wanted in enumerate(rows):
            taken = {name: table[wanted] for name, table in self.features.items()}
            if self.mirrored is not None and flips is not None:
                for name, table in self.mirrored.items():
                    taken[name] = torch.where(flips[i][:, None], table[wanted], taken[name])
            yield {name: table.float() for name, table in taken.items()}


@dataclass
class SentenceData:
    """Everything that a run reads; equal in every process. Implements ``captioner.tasks.base.TrainingData``."""

    outputs: Vocabulary
    train_batches: CaptionBatches
    dev_batches: CaptionBatches
    images: Images
    seed: int
    inputs: Sequence[FeatureSpec] = ()
    ids: Sequence[str] = ()
    """Image id of each row; empty for text."""
    train_rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Rows of the training images, for the features' statistics."""
    dev_rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Rows of the dev images; ``dev_batches`` use indices into these."""
    references: dict[str, list[str]] = field(default_factory=dict)
    """Captions of each dev image, in the order of ``dev_rows``; empty for text."""
    train_references: dict[int, list[list[str]]] = field(default_factory=dict)
    """Tokens of each training image's captions by row; only if sampled captions are scored."""
    dev_decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Decoding of the dev captions."""
    backbone: Backbone | None = None
    """The network that is fine-tuned, if there is one."""
    teacher_size: int = 0
    """Size D' of the teachers' features; 0 if they read the model's."""
    observe: Callable[[Tensor, int, np.random.Generator], Tensor] | None = None
    """The learner's input (B, D) for training rows (B,) at a step, if it is not the same in every epoch."""

    def __len__(self) -> int:
        return len(self.train_batches)

    def batches(self, epoch: int, skip: int = 0, rank: int = 0, size: int = 1) -> Iterator[SentenceBatch]:
        """The batches of an epoch after the first ``skip``; process ``rank`` of ``size`` gets rows ``rank::size``.

        What is mirrored or observed depends only on the seed, the epoch and the batch's number, so that a resumed run
        and one in several processes get the same.
        """
        batches = list(islice(self.train_batches.epoch(epoch), skip, None))
        mine = slice(rank, None, size)
        flips = [self._flips(epoch, skip + i, len(batch.rows))[mine] for i, batch in enumerate(batches)]
        streamed = self.images.stream([batch.rows[mine] for batch in batches], flips)
        for number, (batch, images) in enumerate(zip(batches, streamed, strict=True), start=skip):
            seed = mix_seeds(self.seed, epoch * len(self) + number, rank, 1)
            if self.observe is not None:
                random = np.random.default_rng([self.seed, epoch, number, 2])
                seen = self.observe(batch.rows, epoch * len(self) + number, random)
                images = {**images, "input": seen[mine]}
            yield SentenceBatch(batch.rows[mine], images, batch.inputs[mine], batch.targets[mine], seed)

    def _flips(self, epoch: int, number: int, count: int) -> Tensor:
        """Which of ``count`` images are mirrored, (count,) bool."""
        return torch.from_numpy(np.random.default_rng([self.seed, epoch, number, 1]).random(count) < 0.5)


def load_text(experiment: Experiment) -> SentenceData:
    """The sentences of ``data.text``, some of them held out as dev; raises ``DataError`` if there are too few."""
    data, train = experiment.config.data, experiment.train
    if not data.text:
        raise ConfigError("data.text is empty: name a file with one sentence per line")
    sentences = [tokenize(sentence) for sentence in read_sentences(data.text)]
    if len(sentences) < 2:
        raise DataError(f"{data.text}: one sentence is not enough; some are held out for the dev loss")
    order = np.random.default_rng(0).permutation(len(sentences))  # the same dev sentences for all seeds
    held = min(DEV_MOST, max(1, round(DEV_SHARE * len(sentences))))
    dev = [sentences[i] for i in order[:held]]
    rest = [sentences[i] for i in order[held:]]
    vocabulary = _vocabulary(data, data.vocabulary_from, rest)
    return SentenceData(
        vocabulary,
        _batches(rest, [0] * len(rest), vocabulary, data, train.batch_size, train.seed),
        _batches(dev, [0] * len(dev), vocabulary, data, DEV_BATCH, 0),
        NoImages(),
        train.seed,
        [open_store(path).spec for path in data.features],
    )


def load_captions(experiment: Experiment) -> SentenceData:
    """The captions and images that the configuration names.

    Raises ``DataError``, ``FeatureStoreError`` or ``ConfigError``, which say what is missing.
    """
    config: CaptioningConfig | ClipCaptioningConfig = experiment.config
    data, loss, train = config.data, config.loss, experiment.train
    records = read_dataset(data.format, data.root)
    stores = data.features + loss.teacher_features
    unread = {name for path in stores for name in open_store(path).unfinished}  # damaged images
    chosen = [r for r in records if r.split in ("train", "val") and r.captions and r.image_id not in unread]
    rows = {split: [i for i, r in enumerate(chosen) if r.split == split] for split in ("train", "val")}
    for split, found in rows.items():
        if not found:
            raise DataError(f"{data.root}: no captioned image is in split {split}; training needs train and val")
    words = {i: [tokenize(caption) for caption in record.captions] for i, record in enumerate(chosen)}
    pairs = {split: [(caption, i) for i in found for caption in words[i]] for split, found in rows.items()}
    captions, owners = [c for c, _ in pairs["train"]], [i for _, i in pairs["train"]]
    batch_size = train.batch_size
    vocabulary = _vocabulary(data, train.init_from if loss.self_critical else data.vocabulary_from, captions)
    if loss.self_critical:  # captions will be sampled: batches hold each image once, with an empty caption
        captions, owners, batch_size = [[] for _ in rows["train"]], rows["train"], batch_size // loss.num_samples
    place = {row: n for n, row in enumerate(rows["val"])}
    dev_captions, dev_owners = [c for c, _ in pairs["val"]], [place[i] for _, i in pairs["val"]]
    loaded = SentenceData(
        vocabulary,
        _batches(captions, owners, vocabulary, data, batch_size, train.seed),
        _batches(dev_captions, dev_owners, vocabulary, data, DEV_BATCH, 0),
        NoImages(),
        train.seed,
        ids=[record.image_id for record in chosen],
        train_rows=torch.tensor(rows["train"]),
        dev_rows=torch.tensor(rows["val"]),
        references={chosen[i].image_id: list(chosen[i].captions) for i in rows["val"]},
        train_references={i: words[i] for i in rows["train"]} if loss.self_critical else {},
        dev_decoding=replace(config.decoding, beam_size=config.dev_beam_size or config.decoding.beam_size),
    )
    if config.finetune.backbone:
        return _with_files(loaded, config.finetune, train.init_from, chosen)
    if data.shuffle_buffer:
        return _with_streamed(loaded, config, chosen)
    return _with_features(loaded, config, chosen)


def _with_files(
    data: SentenceData, config: FinetuneConfig, init_from: str, records: Sequence[Captioned]
) -> SentenceData:
    """``data`` with the image files of ``records`` and the backbone that reads them."""
    weights = Path(config.weights) if config.weights else None
    backbone = load_backbone(config.backbone, weights, _trained_state(init_from, config))
    images = ImageFiles([_file(record) for record in records], backbone.spec, config.workers, config.mirror)
    return replace(data, images=images, inputs=[backbone.spec], backbone=backbone)


def _with_features(
    data: SentenceData, config: CaptioningConfig | ClipCaptioningConfig, records: Sequence[Captioned]
) -> SentenceData:
    """``data`` with the cached features of ``records``."""
    stores, mirrored = _open_stores(config)
    ids = [record.image_id for record in records]
    features = {name: _read_features(some, ids) for name, some in stores.items()}
    flipped = None
    if mirrored is not None:
        flipped = {name: _read_features(some, ids) for name, some in mirrored.items()}
    return replace(data, images=CachedFeatures(features, flipped), **_described(stores))


def _with_streamed(
    data: SentenceData, config: CaptioningConfig | ClipCaptioningConfig, records: Sequence[Captioned]
) -> SentenceData:
    """``data`` with features that are read shard by shard, and batches in a suitable order."""
    stores, mirrored = _open_stores(config)
    for store in chain(*stores.values(), *(mirrored or {}).values()):
        if not isinstance(store, ShardedStore):
            raise ConfigError(
                f"{store.path}: data.shuffle_buffer reads folders of captioner extract --engine, or of tars with "
                "features; 0 reads all features into memory"
            )
    ids = [record.image_id for record in records]
    images = StreamedFeatures(cast(Stores, stores), cast(Stores | None, mirrored), ids, data.dev_rows)
    shards = images.places[:, 0].numpy()
    # The statistics are of whole shards, chosen at random, since a sample from all shards would read all of them.
    order = np.random.default_rng(data.seed).permutation(shards.max() + 1)[shards[data.train_rows]]
    return replace(
        data,
        images=images,
        train_batches=data.train_batches.by_shards(shards, config.data.shuffle_buffer),
        train_rows=data.train_rows[torch.from_numpy(np.argsort(order, kind="stable"))][:STATISTICS_FROM],
        **_described(stores),
    )


def _open_stores(
    config: CaptioningConfig | ClipCaptioningConfig,
) -> tuple[dict[str, list[Store]], dict[str, list[Store]] | None]:
    """The stores that the model (``input``) and the teachers (``teacher``) read, and those of mirrored images, if any.

    Raises ``ConfigError`` if there are none, and for features that do not fit.
    """
    paths = {"input": config.data.features, "teacher": config.loss.teacher_features}
    mirrored_paths = {"input": config.data.features_mirrored, "teacher": config.loss.teacher_features_mirrored}
    if not paths["input"]:
        raise ConfigError("data.features is empty: name the feature stores, made with `captioner extract`")
    stores = {name: [open_store(path) for path in some] for name, some in paths.items() if some}
    for store in (one for some in stores.values() for one in some):
        if store.spec.frames:
            raise ConfigError(f"{store.path}: has {store.spec.frames} vectors for each item; sentences need one")
    if not mirrored_paths["input"]:
        if mirrored_paths["teacher"]:
            raise ConfigError("loss.teacher_features_mirrored needs data.features_mirrored")
        return stores, None
    mirrored = {name: [open_store(path, mirrored=True) for path in mirrored_paths[name]] for name in stores}
    for name in stores:
        found, wanted = (sum(store.spec.dimension for store in some[name]) for some in (mirrored, stores))
        if found != wanted:
            key = {"input": "data.features", "teacher": "loss.teacher_features"}[name]
            raise ConfigError(f"{key}_mirrored give {found} numbers, {key} {wanted}")
    return stores, mirrored


def _described(stores: Mapping[str, Sequence[Store]]) -> dict[str, Any]:
    """The fields of ``SentenceData`` that describe the features."""
    teacher = sum(store.spec.dimension for store in stores.get("teacher", ()))
    return {"inputs": [store.spec for store in stores["input"]], "teacher_size": teacher}


def load_clips(experiment: Experiment) -> SentenceData:
    """``load_captions`` for clips: in training, label predictions of any observation, mixed with gold labels."""
    from captioner.tasks.sentences.observations import open_observations  # imports HDF5, as in open_store

    data = load_captions(experiment)
    observe = open_observations(experiment.config.data, data.ids, len(data) * experiment.train.epochs)
    return replace(data, observe=observe)


def _trained_state(init_from: str, config: FinetuneConfig) -> dict[str, Tensor] | None:
    """The backbone's weights in the checkpoint that starts the run, if it holds them and no weight file is given."""
    if not init_from or config.weights:
        return None
    source = load_checkpoint(init_from)
    for spec, state in zip(source.inputs, source.backbone_states, strict=True):
        if spec.key == config.backbone:
            return state
    return None


def _file(record: Captioned) -> Path:
    if record.path is None:
        raise DataError(f"{record.image_id}: the image is not on this disk; fine-tuning needs the files")
    return record.path


def _read_features(stores: Sequence[Store], ids: Sequence[str]) -> Tensor:
    """Features (len(ids), D), concatenated over the stores; float16 if all stores are, which halves the memory."""
    half = all(store.dtype == "float16" for store in stores)
    table = torch.empty(
        len(ids),
        sum(store.spec.dimension for store in stores),
        dtype=torch.float16 if half else torch.float32,
    )
    column = 0
    for store in stores:
        size = store.spec.dimension
        for first in range(0, len(ids), READ_AT_ONCE):
            part = torch.from_numpy(store.get(ids[first : first + READ_AT_ONCE]))
            table[first : first + len(part), column : column + size] = part
        column += size
    return table


def open_store(path: str, *, mirrored: bool = False) -> Store:
    """The feature store or label predictions at ``path``."""
    # Imported here, because importing HDF5 takes a tenth of the time of captioning one photo.
    from captioner.features import label_predictions

    return label_predictions.open_store(path, mirrored=mirrored)


def _vocabulary(data: Any, source: str, captions: list[list[str]]) -> Vocabulary:
    """The vocabulary of the checkpoint ``source`` if there is one, else the words of ``captions``."""
    if not source:
        return Vocabulary.build(captions, data.min_count)
    outputs = load_checkpoint(source).outputs
    if not isinstance(outputs, Vocabulary):
        raise ConfigError(f"{source}: its outputs are {outputs.kind}, not a vocabulary")
    return outputs


def _batches(
    captions: list[list[str]], rows: list[int], vocabulary: Vocabulary, data: Any, size: int, seed: int
) -> CaptionBatches:
    ids = [vocabulary.encode(caption) for caption in captions]
    return CaptionBatches(ids, rows, size, seed, max_length=data.max_length)
