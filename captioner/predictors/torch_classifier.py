"""Classifiers that torch runs: published networks, trained runs, and a captioner's CNN."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captioner.backbones.classifier import Headed, load_published_classifier
from captioner.backbones.imagenet import imagenet_classes
from captioner.backbones.spec import BackboneSpec
from captioner.checkpoint import load_checkpoint
from captioner.devices import find_device
from captioner.errors import UsageError
from captioner.model_file import Header
from captioner.predictors.classifier import FirstLayer, ImageClassifier
from captioner.predictors.runtime import load_runtime
from captioner.predictors.torch_runtime import TorchRuntime


class TorchNetwork:
    """A network from prepared images (N, 3, S, S) to logits (N, K), on a device."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.network, self.device = network.to(device).eval(), device

    @torch.inference_mode()
    def probs(self, images: np.ndarray) -> np.ndarray:
        logits = self.network(torch.from_numpy(images).to(self.device))
        found: np.ndarray = logits.float().softmax(1).cpu().numpy()
        return found

    @torch.inference_mode()
    def first_layer(self, image: np.ndarray) -> FirstLayer:
        """Raise ``UsageError`` for a network without a convolution over images."""
        first = next((module for module in self.network.modules() if isinstance(module, nn.Conv2d)), None)
        if first is None:
            raise UsageError("this network has no convolution to show; name another model with --model")
        seen: list[Tensor] = []
        hook = first.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            self.network(torch.from_numpy(image[None]).to(self.device))
        finally:
            hook.remove()
        return FirstLayer(first.weight.float().cpu().numpy(), seen[0][0].float().cpu().numpy())


class Gray(nn.Module):
    """Makes a network of one channel accept prepared images of three: (N, 3, S, S) to logits (N, K)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.mean(1, keepdim=True))
        return logits


def load_published(model: str, device: str) -> ImageClassifier:
    """The classifier of a published network, by its name."""
    where = find_device(device)
    spec, network, classes = load_published_classifier(model)
    return ImageClassifier(model, classes, spec, TorchNetwork(network, where))


def load_run(header: Header, model: str, device: str) -> ImageClassifier:
    """The classifier of a checkpoint of the task ``classification``."""
    where = find_device(device)
    checkpoint = load_checkpoint(header.path)
    spec: Any = checkpoint.inputs[0]
    network = Gray(checkpoint.model) if checkpoint.config.data.channels == 1 else checkpoint.model
    return ImageClassifier(model, checkpoint.outputs.to_list(), spec, TorchNetwork(network, where))


def load_backbone_of(header: Header, model: str, device: str, index: int) -> ImageClassifier:
    """The CNN of a captioner's input ``index``, with its layer of ImageNet's classes."""
    runtime = load_runtime(header, model, device, "torch")
    assert isinstance(runtime, TorchRuntime)
    spec = header.inputs[index]
    assert isinstance(spec, BackboneSpec)
    network = Headed(runtime.backbones[index].network)
    return ImageClassifier(model, imagenet_classes(), spec, TorchNetwork(network, runtime.device))
