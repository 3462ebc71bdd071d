"""Vision encoders of Hugging Face transformers: ``transformers:MODEL``, where MODEL is a name or a folder.

CLIP, SigLIP, DINOv2, ViT, BEiT, ConvNeXt and similar models. The feature is the encoder's pooled output or, if the
published weights have no pooling layer, its first (class) token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from captioner.backbones.backbone import Backbone
from captioner.backbones.classifier import PublishedClassifier
from captioner.backbones.layers import pool
from captioner.backbones.spec import BackboneSpec
from captioner.backbones.weights import State, fit_weights, read_weights
from captioner.errors import BackboneError, MissingWeights
from captioner.hub import may_download, model_folder, model_source
from captioner.optional import require

FILES = "config.json, preprocessor_config.json and model.safetensors"
FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which the image processors use


def build(name: str, weights: Path | None, state: State | None) -> Backbone:
    """The vision encoder of the model ``name``."""
    key = f"transformers:{name}"
    source = model_source(name)
    spec = _spec(key, _load("AutoImageProcessor", source, name)[0].to_dict())
    config = _load("AutoConfig", source, name)[0]
    if weights is not None:
        state = read_weights(weights)
    if state is None:
        kind = _encoder_name(config)
        network, missing = _load(kind or "AutoModel", source, name, output_loading_info=True)
        network = network if kind else getattr(network, "vision_model", network)
        lacking = [item for item in missing["missing_keys"] if "pooler" not in item]
        if lacking:
            raise BackboneError(f"{key}: the model's files lack {lacking[0]}")
        pooled = not missing["missing_keys"]
    else:
        network = _fresh(config)
        pooled = any("pooler" in item for item in state) or not any("pooler" in item for item in network.state_dict())
    if not pooled:
        network.pooler = None
    if state is not None:
        fit_weights(network, state, key)
    return Backbone(spec, network.float().eval(), _Read(pooled, key))


class _Logits(nn.Module):
    """From prepared images (N, 3, S, S) to logits (N, K)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=images).logits
        return logits


def load_classifier(name: str) -> PublishedClassifier:
    """The image classifier ``name``, with the labels of its configuration."""
    key = f"transformers:{name}"
    source = model_source(name)
    spec = _spec(key, _load("AutoImageProcessor", source, name)[0].to_dict())
    network, found = _load("AutoModelForImageClassification", source, name, output_loading_info=True)
    if found["missing_keys"]:
        raise BackboneError(f"{key}: the model's files lack {sorted(found['missing_keys'])[0]}; is it a classifier?")
    labels = network.config.id2label
    return PublishedClassifier(spec, _Logits(network).float().eval(), [str(labels[n]) for n in sorted(labels)])


class _Read:
    """Reads ``pooler_output`` or, if ``pooled`` is false, the class token of the last layer."""

    def __init__(self, pooled: bool, where: str) -> None:
        self.pooled, self.where = pooled, where

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        result = network(pixel_values=images)
        if self.pooled and result.get("pooler_output") is not None:
            pooled: Tensor = result.pooler_output.flatten(1)  # some give (N, D, 1, 1)
            return pooled
        hidden = result.last_hidden_state  # (N, T, D), or a map
        return pool(hidden[:, 0] if hidden.ndim == 3 else hidden, self.where)


def _load(kind: str, source: str, name: str, **options: Any) -> Any:
    """``transformers.kind.from_pretrained``: from disk if the files are there, else from the network.

    Returns a pair: the object and, with ``output_loading_info``, the missing weights.
    """
    loader = getattr(require("transformers", "transformers"), kind)
    failure: Exception | None = None
    for local in (True,) if Path(source).is_dir() or not may_download() else (True, False):
        try:
            result = loader.from_pretrained(source, local_files_only=local, **options)
            return result if options else (result, {})
        except (OSError, ValueError) as error:
            failure = error
    folder = source if Path(source).is_dir() else str(model_folder(name))
    reason = str(failure).strip().splitlines()[0]
    advice = f"put {FILES} of huggingface.co/{name} into {folder}"
    raise MissingWeights(f"cannot load transformers:{name} ({reason}); {advice}")


def _encoder_name(config: Any) -> str | None:
    """Class of the image part of a model of images and text, such as CLIPVisionModel; None for plain encoders."""
    if not hasattr(config, "vision_config"):
        return None
    name = type(config).__name__.removesuffix("Config") + "VisionModel"
    return name if hasattr(require("transformers", "transformers"), name) else None


def _fresh(config: Any) -> nn.Module:
    """The encoder of ``config`` with random weights."""
    transformers = require("transformers", "transformers")
    kind = _encoder_name(config)
    if kind:
        network: nn.Module = getattr(transformers, kind)(config.vision_config)
        return network
    network = transformers.AutoModel.from_config(config)
    return getattr(network, "vision_model", network)


def _spec(key: str, processor: dict[str, Any]) -> BackboneSpec:
    """The spec that corresponds to an image processor's configuration."""
    resize, cut = processor.get("size") or {}, processor.get("crop_size") or {}
    crops = bool(processor.get("do_center_crop")) and bool(cut)
    shorter = resize.get("shortest_edge")
    side = cut.get("height") if crops else resize.get("height", shorter)
    if not side:
        raise BackboneError(f"{key}: its image processor has no fixed size ({resize}); use another model")
    normalized = processor.get("do_normalize", True)
    return BackboneSpec(
        key=key,
        size=int(side),
        resize="crop" if shorter else "squash",
        shorter=int(shorter) if shorter else 0,
        filter=FILTERS.get(int(processor.get("resample") or 2), "bicubic"),
        mean=tuple(processor["image_mean"]) if normalized else (0.0, 0.0, 0.0),
        std=tuple(processor["image_std"]) if normalized else (1.0, 1.0, 1.0),
        output="pooler_output",
        weights=key.partition(":")[2],
        license="see the model's card",
    )
