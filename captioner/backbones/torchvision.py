"""Classification networks of torchvision at a named layer: ``torchvision:NAME@LAYER``.

Layers of VGG and AlexNet are ``fc6``, ``fc7`` (both after their ReLU, like the features published with Caffe) and
``fc8`` (the class scores). Every network has ``pool``: the input of its last linear layer, for most the pooled map. Any
other layer is named by its dotted module name; maps are averaged over space.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from captioner.backbones.backbone import Backbone
from captioner.backbones.classifier import PublishedClassifier
from captioner.backbones.layers import reader
from captioner.backbones.spec import BackboneSpec
from captioner.backbones.weights import State, fit_weights, read_weights
from captioner.errors import BackboneError, MissingWeights, shorten

CAFFE_LAYERS = ("fc6", "fc7", "fc8")
LICENSE = "code BSD-3-Clause; weights trained on ImageNet, see pytorch.org/vision"


def build(name: str, weights: Path | None, state: State | None) -> Backbone:
    """The network ``NAME@LAYER`` with torchvision's default weights."""
    model, _, layer = name.partition("@")
    network = classifier(model)
    spec = preset_spec(model, layer or ("fc7" if _is_caffe_like(network) else "pool"))
    if weights is not None:
        spec = replace(spec, weights=str(weights), sha256="")

    def find() -> State:
        if state is not None:
            return state
        return read_weights(weights) if weights else _download(spec.weights)

    return truncate(network, spec, find)


def load_classifier(name: str) -> PublishedClassifier:
    """The whole network ``NAME`` with torchvision's default weights, and the names of its classes."""
    network = classifier(name)
    spec = preset_spec(name, "")
    fit_weights(network, _download(spec.weights), spec.key)
    return PublishedClassifier(spec, network, models.get_model_weights(name).DEFAULT.meta["categories"])


def preset_spec(model: str, layer: str) -> BackboneSpec:
    """The spec of torchvision's default weights for ``model``: their url and the preparation of images."""
    enum = models.get_model_weights(model).DEFAULT
    preset = enum.transforms()
    return BackboneSpec(
        key=f"torchvision:{model}@{layer}",
        size=preset.crop_size[0],
        shorter=preset.resize_size[0],
        filter=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        output=layer,
        weights=enum.url,
        sha256=enum.url.rsplit("-", 1)[-1].partition(".")[0],
        license=LICENSE,
    )


def classifier(name: str) -> nn.Module:
    """torchvision's classification network with this name, in evaluation mode, with random weights."""
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.4)
        raise BackboneError(
            f"torchvision has no classification network {shorten(name)}; similar names: {', '.join(near) or 'none'}"
        )
    options: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):  # as torchvision does for its own weights
        options |= {"transform_input": True, "init_weights": False}
    network: nn.Module = models.get_model_builder(name)(**options)
    return network.eval()


def truncate(network: nn.Module, spec: BackboneSpec, state: Callable[[], State]) -> Backbone:
    """The backbone cut at ``spec.output``.

    ``state()`` gives the weights of the whole network or of its remaining part. It is called only if the layer exists,
    because it may download them.
    """
    whole = set(network.state_dict())
    for auxiliary in ("aux1", "aux2", "AuxLogits"):  # classifiers used only in training
        if hasattr(network, auxiliary):
            setattr(network, auxiliary, None)
    output = spec.output
    if output in CAFFE_LAYERS:
        _end_at(network, output, spec.key)
        output = ""
    elif output in ("pool", ""):
        network.set_submodule(_head(network, spec.key), nn.Identity())
        output = ""
    read = reader(network, output, spec.key)
    fit_weights(network, state(), spec.key, spare=whole - set(network.state_dict()))
    return Backbone(spec, network, read)


def _is_caffe_like(network: nn.Module) -> bool:
    """VGG and AlexNet: three linear layers at the end."""
    last = getattr(network, "classifier", None)
    return isinstance(last, nn.Sequential) and sum(isinstance(layer, nn.Linear) for layer in last) == 3


def _end_at(network: nn.Module, layer: str, where: str) -> None:
    """Cut VGG's or AlexNet's classifier after fc6 or fc7 with its ReLU, or after fc8."""
    if not _is_caffe_like(network):
        raise BackboneError(f"{where}: only VGG and AlexNet have {layer}; use pool or a module name")
    layers = list(network.get_submodule("classifier").children())
    linear = [index for index, module in enumerate(layers) if isinstance(module, nn.Linear)]
    end = linear[CAFFE_LAYERS.index(layer)] + (1 if layer == "fc8" else 2)
    network.set_submodule("classifier", nn.Sequential(*layers[:end]))


def _head(network: nn.Module, where: str) -> str:
    """The layer of the class scores: the last linear one or, if there is none (SqueezeNet), the last convolution."""
    for kind in (nn.Linear, nn.Conv2d):
        found: list[str] = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if found:
            return found[-1]
    raise BackboneError(f"{where}: no linear layer, which pool needs; name a module instead")


def _download(url: str) -> State:
    """Read weights from torchvision's cache; they are downloaded to it first if they are missing."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        try:
            torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            advice = f"fetch {url} elsewhere and put it at {path}"
            raise MissingWeights(f"cannot download weights ({error}); {advice}") from error
    return read_weights(path)
