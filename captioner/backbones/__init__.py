"""Backbones: pretrained networks that turn an image into a feature vector, each described by a ``BackboneSpec``.

A new family is one file with ``build(name, weights, state)`` and one line in ``FAMILIES``.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.errors import BackboneError, shorten

if TYPE_CHECKING:  # specs of backbones are read without torch
    from captioner.backbones.backbone import Backbone
    from captioner.backbones.weights import State

FAMILIES = {
    "compact": "captioner.backbones.compact:build",
    "default": "captioner.backbones.default:build",
    "efficientnet-lite": "captioner.backbones.efficientnet_lite:build",
    "local": "captioner.backbones.local:build",
    "pixels": "captioner.backbones.pixels:build",
    "torchvision": "captioner.backbones.torchvision:build",
    "transformers": "captioner.backbones.transformers:build",
}
"""For each prefix of a key, the part before its first colon, the function (name, weights, state) -> Backbone."""


def load_backbone(
    key: str, weights: Path | None = None, state: State | None = None, *, trusted: bool = True
) -> Backbone:
    """Load the backbone that ``key`` names, on the CPU, in evaluation mode.

    Keys: ``default`` (the default model's CNN), ``compact``, ``efficientnet-lite:2``, ``torchvision:vgg16@fc7``,
    ``transformers:openai/clip-vit-base-patch32``, ``local:path/to/record.yaml``. ``weights`` is a file to use instead
    of the usual one; ``state`` holds weights that are already in memory (``backbone.network.state_dict()``), so that
    nothing is read or downloaded. A key that is not ``trusted``, because a file and not the user names it, may not run
    the Python file of a record.
    Raises ``BackboneError`` for unknown keys and weights that do not fit, ``MissingWeights`` if there are none.
    """
    family, _, name = key.partition(":")
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, 1)
        hint = f"did you mean {near[0]}?" if near else f"a key starts with one of {', '.join(FAMILIES)}"
        raise BackboneError(f"unknown backbone {shorten(key)}; {hint}")
    if family == "local" and not trusted:
        from captioner.backbones.local import require_trust

        require_trust(name)
    module, _, function = FAMILIES[family].partition(":")
    backbone: Backbone = getattr(importlib.import_module(module), function)(name, weights, state)
    return backbone.eval()
