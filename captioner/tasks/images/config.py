"""Configuration sections of the task that classifies images."""

from __future__ import annotations

from dataclasses import dataclass, field

from captioner.config import CrossEntropyConfig, Experiment, within
from captioner.errors import ConfigError
from captioner.models.image_config import ImageModelConfig


@dataclass(frozen=True)
class ImageDataConfig:
    """The labeled images, and their augmentation in training."""

    format: str = "folders"
    """Reader: a name in captioner.data.labeled.READERS."""
    root: str = "."
    """Folder that the reader opens."""
    side: int = 32
    """Side in pixels of the stored images; image files are scaled to it."""
    channels: int = 3
    """3 for RGB, 1 for gray."""
    val: int = 5000
    """Training images that are held out as dev, the same for every seed; unused if the data set has a val split."""
    crop: int = 32
    """Side in pixels of the network's input: cropped at random in training, else from the middle."""
    pad: int = 0
    """Pixels by which a crop in training may extend past the border, where the image is mirrored."""
    flip: bool = False
    """Mirror half of the training images, chosen at random, left to right."""

    def __post_init__(self) -> None:
        within("data.side", self.side, 4, 1024)
        within("data.val", self.val, 1)
        within("data.crop", self.crop, 4, self.side)
        within("data.pad", self.pad, 0, self.side - 1)
        if self.channels not in (1, 3):
            raise ConfigError(f"data.channels: {self.channels} is neither 1 (gray) nor 3 (RGB)")


@dataclass(frozen=True)
class ClassificationConfig:
    """The configuration sections of the task ``classification``."""

    model: ImageModelConfig = field(default_factory=ImageModelConfig)
    data: ImageDataConfig = field(default_factory=ImageDataConfig)
    loss: CrossEntropyConfig = field(default_factory=CrossEntropyConfig)


def check_classification(experiment: Experiment) -> None:
    """Raise ``ConfigError`` for training settings that this task does not support."""
    if experiment.train.init_from:
        raise ConfigError("train.init_from: the task classification starts from random weights; leave it empty")
