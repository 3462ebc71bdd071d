"""The learner, loss and dev metrics of the task ``classification``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.backbones.spec import BackboneSpec
from captioner.config import Experiment
from captioner.data.records import ClassNames
from captioner.errors import DataError
from captioner.features.spec import FeatureSpec
from captioner.models import IMAGE_MODELS
from captioner.registry import resolve
from captioner.tasks.base import Learner, StepLoss
from captioner.tasks.images.config import ClassificationConfig
from captioner.tasks.images.data import KEY, ImageBatch, ImageData, middle

AT_ONCE = 500
"""Images that are evaluated together."""
WHITENED_BY = 2000
"""Training images from whose patches the whitening is computed."""


class ImageLearner(Learner):
    """A network, and the conversion of bytes to its input."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, spec: BackboneSpec, channels: int, label_smoothing: float = 0.0) -> None:
        super().__init__(model)
        self.label_smoothing = label_smoothing
        # Not saved with the run, since the data have them.
        self.register_buffer("mean", 255 * torch.tensor(spec.mean[:channels]), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(spec.std[:channels]), persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """Images (N, S, S, C) uint8 as the network's input, (N, C, S, S) float32."""
        return ((images - self.mean) / self.std).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """From images (N, S, S, C) uint8, logits (N, K) float32."""
        logits: Tensor = self.model(self.normalize(images))
        return logits.float()


def build_classifier(config: ClassificationConfig, inputs: Sequence[FeatureSpec], outputs: ClassNames) -> nn.Module:
    """The network that ``config.model`` describes, for the images of ``config.data``.

    Raises ``DataError`` unless ``inputs`` are pixels, cut as ``config.data`` says.
    """
    specs = [spec for spec in inputs if isinstance(spec, BackboneSpec) and spec.key == KEY]
    if len(inputs) != 1 or not specs or specs[0].size != config.data.crop:
        raise DataError(f"an image classifier has one input, {KEY} of {config.data.crop} x {config.data.crop}")
    build = resolve(IMAGE_MODELS, config.model.architecture, "architecture")
    model: nn.Module = build(config.model, config.data.channels, config.data.crop, len(outputs))
    return model


def make_image_learner(experiment: Experiment, data: ImageData, model: nn.Module, device: torch.device) -> ImageLearner:
    """The learner on ``device``; the images are moved there too."""
    data.to(device)
    config = experiment.config
    return ImageLearner(model, data.inputs[0], config.data.channels, config.loss.label_smoothing).to(device)


def start_classifier(experiment: Experiment, data: ImageData, learner: ImageLearner) -> list[str]:
    """Set a fixed first convolution to whiten patches of the training images, if the network has one."""
    whiten = getattr(learner.model, "whiten", None)
    if whiten is not None:
        whiten(learner.normalize(middle(data.pixels[:WHITENED_BY], data.config.crop)))
    return []


def class_loss(learner: ImageLearner, batch: ImageBatch) -> StepLoss:
    """Cross-entropy in nats."""
    logits = learner(batch.images)
    loss = functional.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=learner.label_smoothing)
    return StepLoss(loss, len(batch))


def evaluate_classes(learner: ImageLearner, data: ImageData, precision: str) -> dict[str, float]:
    """``accuracy`` (percent) and ``dev_loss`` (nats) on the dev images."""
    logits = predict_logits(learner, data.val_pixels, data.config.crop, precision)
    loss = functional.cross_entropy(logits, data.val_labels)
    return {"accuracy": 100 * float((logits.argmax(1) == data.val_labels).float().mean()), "dev_loss": float(loss)}


@torch.inference_mode()
def predict_logits(learner: ImageLearner, pixels: Tensor, side: int, precision: str = "float32") -> Tensor:
    """Logits (N, K) float32 of the middle, ``side`` pixels wide and high, of ``pixels`` (N, H, W, C) uint8."""
    learner.eval()
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return torch.cat([learner(some) for some in torch.split(middle(pixels, side), AT_ONCE)])
