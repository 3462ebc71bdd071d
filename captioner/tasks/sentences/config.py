"""Configuration sections of the tasks that write sentences."""

from __future__ import annotations

from dataclasses import dataclass, field

from captioner.config import CrossEntropyConfig, Experiment, choose, within
from captioner.decoding.config import DecodingConfig
from captioner.errors import ConfigError
from captioner.models.lrcn import LRCNConfig


@dataclass(frozen=True)
class SentenceDataConfig:
    """The vocabulary and the length of sentences."""

    vocabulary_from: str = ""
    """Checkpoint whose vocabulary is used instead of counting words; min_count is then ignored."""
    min_count: int = 5
    """Words seen fewer times in the training captions become <unk>."""
    max_length: int = 20
    """Longest sentence in tokens, including the end token; longer ones are cut."""

    def __post_init__(self) -> None:
        within("data.min_count", self.min_count, 1)
        within("data.max_length", self.max_length, 2, 10_000)


@dataclass(frozen=True)
class CaptionDataConfig(SentenceDataConfig):
    """The captions, the images' features and the vocabulary."""

    format: str = "flickr8k"
    """Reader: a name in captioner.data.READERS."""
    root: str = "."
    """Folder (or file, for own data) that the reader opens."""
    features: tuple[str, ...] = ()
    """Feature stores; several are concatenated in this order. A folder is a store in parts, or shards of features
    (docs/scale.md), which may be in an object store."""
    features_mirrored: tuple[str, ...] = ()
    """The same stores, made with captioner extract --mirror; training picks one or the other at random."""
    shuffle_buffer: int = 0
    """Number of captions that are shuffled together if features are read shard by shard; 0: all features are in
    memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("data.shuffle_buffer", self.shuffle_buffer, 0)


@dataclass(frozen=True)
class ClipDataConfig(CaptionDataConfig):
    """The sentences of clips, their label predictions and the vocabulary."""

    format: str = "clips"
    """Reader: a name in captioner.data.READERS."""
    gold_share: tuple[float, ...] = (0.0, 0.0)
    """Share of the gold labels in a training clip's label predictions, at the first step and at the last; linear
    between them. Marginals are averaged with the gold labels; a MAP assignment is replaced by them with this
    probability."""
    observe_by: str = "clip"
    """Which observations a training sentence gets. clip: those of its clip. labels: those of the training clips that
    have most labels in common with it, so that their uncertainty fits the sentence (clips.jsonl beside the
    sentences)."""
    observations: int = 1000
    """Most observations of a training clip that are used, of those in the label predictions; each step draws one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.gold_share) != 2:
            raise ConfigError("data.gold_share: give two shares, for the first step and the last, such as [1, 0.5]")
        for share in self.gold_share:
            within("data.gold_share", share, 0, 1)
        within("data.observations", self.observations, 1, 1000)
        choose("data.observe_by", self.observe_by, ("clip", "labels"))


@dataclass(frozen=True)
class TextDataConfig(SentenceDataConfig):
    """The sentences and the vocabulary."""

    text: str = ""
    """File with one sentence per line."""
    features: tuple[str, ...] = ()
    """Feature stores of the captioner that will start from this model; only their size is used, if image_dim is 0."""


@dataclass(frozen=True)
class LossConfig:
    """The training objective."""

    objective: str = "cross_entropy"
    """cross_entropy, or self_critical: the score of captions sampled from the model named in train.init_from."""
    reward: str = "cider"
    """Score of a sampled caption: cider (CIDEr-D) or bleu4 (its contribution to the batch's); self_critical only."""
    num_samples: int = 5
    """Captions sampled for each image; self_critical only."""
    label_smoothing: float = 0.0
    """Probability mass spread evenly over the vocabulary; cross_entropy only."""
    teachers: tuple[str, ...] = ()
    """Teacher checkpoints; the distillation target is the mean of their next-token distributions."""
    teacher_features: tuple[str, ...] = ()
    """Feature stores for the teachers, if they differ from the model's; teachers of another size read the model's."""
    teacher_features_mirrored: tuple[str, ...] = ()
    """The same stores of mirrored images; required with data.features_mirrored."""
    teacher_weight: float = 0.5
    """Weight of the distillation loss; the rest is that of the loss on the captions. Unused without teachers."""

    def __post_init__(self) -> None:
        choose("loss.objective", self.objective, ("cross_entropy", "self_critical"))
        choose("loss.reward", self.reward, ("cider", "bleu4"))
        within("loss.num_samples", self.num_samples, 2, 1000)
        within("loss.label_smoothing", self.label_smoothing, 0, 0.9)
        within("loss.teacher_weight", self.teacher_weight, 0, 1)
        if self.teachers and self.objective == "self_critical":
            raise ConfigError("loss.teachers need loss.objective cross_entropy, not self_critical")
        if not self.teachers and (self.teacher_features or self.teacher_features_mirrored):
            raise ConfigError("loss.teacher_features without teachers: name their checkpoints in loss.teachers")

    @property
    def self_critical(self) -> bool:
        """Whether captions are sampled from the model."""
        return self.objective == "self_critical"


@dataclass(frozen=True)
class FinetuneConfig:
    """Training of the backbone together with the decoder, from image files instead of cached features."""

    backbone: str = ""
    """Backbone key, for example torchvision:vgg16@fc7; empty trains on cached features."""
    weights: str = ""
    """Weight file of the backbone; empty: the weights in train.init_from if it has any, else the backbone's own."""
    lr: float = 1e-4
    """Peak learning rate of the backbone."""
    mirror: bool = True
    """Mirror half of the images at random."""
    workers: int = 2
    """Processes that open images."""

    def __post_init__(self) -> None:
        within("finetune.lr", self.lr, 0)
        within("finetune.workers", self.workers, 0, 256)


@dataclass(frozen=True)
class CaptioningConfig:
    """The configuration sections of the task ``captioning``."""

    model: LRCNConfig = field(default_factory=LRCNConfig)
    data: CaptionDataConfig = field(default_factory=CaptionDataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Default decoding of the model's captions; saved in the checkpoint."""
    dev_beam_size: int = 0
    """Beam size for the dev captions during training: 1 is greedy and fast, 0 takes that of ``decoding``."""

    def __post_init__(self) -> None:
        within("dev_beam_size", self.dev_beam_size, 0, 1000)
        if self.finetune.backbone and self.loss.teachers:
            raise ConfigError("loss.teachers read cached features: finetune.backbone must be empty")
        if self.finetune.backbone and self.loss.self_critical:
            raise ConfigError("loss.objective self_critical reads cached features: finetune.backbone must be empty")


@dataclass(frozen=True)
class ClipCaptioningConfig:
    """The configuration sections of the task ``clip_captioning``."""

    model: LRCNConfig = field(default_factory=LRCNConfig)
    data: ClipDataConfig = field(default_factory=ClipDataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    """Default decoding of the model's sentences; saved in the checkpoint."""
    dev_beam_size: int = 0
    """Beam size for the dev sentences during training: 1 is greedy and fast, 0 takes that of ``decoding``."""

    def __post_init__(self) -> None:
        within("dev_beam_size", self.dev_beam_size, 0, 1000)

    @property
    def finetune(self) -> FinetuneConfig:
        """Nothing is fine-tuned, since clips are read from cached features."""
        return FinetuneConfig()


@dataclass(frozen=True)
class LanguageModelConfig:
    """The configuration sections of the task ``language_model``."""

    model: LRCNConfig = field(default_factory=LRCNConfig)
    data: TextDataConfig = field(default_factory=TextDataConfig)
    loss: CrossEntropyConfig = field(default_factory=CrossEntropyConfig)


def check_captioning(experiment: Experiment) -> None:
    """Raise ``ConfigError`` for settings of training and loss that exclude each other."""
    config, train = experiment.config, experiment.train
    if not config.loss.self_critical:
        return
    if not train.init_from:
        raise ConfigError("loss.objective self_critical starts from a trained model: name it in train.init_from")
    if config.data.vocabulary_from not in ("", train.init_from):
        raise ConfigError("loss.objective self_critical keeps train.init_from's words: empty data.vocabulary_from")
    if train.batch_size % config.loss.num_samples:
        raise ConfigError(
            f"train.batch_size: {train.batch_size} is not a multiple of loss.num_samples, {config.loss.num_samples}"
        )
