"""Your own network: a YAML record beside a weight file, with the architecture in Python or by torchvision's name.

    architecture: model.py:build          # a file beside the record and a function in it, or torchvision:resnet50
    weights: model.safetensors            # beside the record; safetensors or a PyTorch state dict
    size: 224                             # pixels; further fields are those of BackboneSpec
    output: features()[0]                 # optional: a layer, or a method of the network

The Python file is run, so use records of people you trust.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, get_type_hints

from torch import nn

from captioner.backbones.backbone import Backbone
from captioner.backbones.layers import reader
from captioner.backbones.spec import BackboneSpec
from captioner.backbones.weights import State, fit_weights, read_weights
from captioner.config import convert
from captioner.errors import BackboneError, ConfigError, shorten
from captioner.files import sha256
from captioner.plain_yaml import read_yaml

TRUST = "CAPTIONER_TRUST_RECORDS"
HINTS = {**get_type_hints(BackboneSpec), "kind": str}


def build(name: str, weights: Path | None, state: State | None) -> Backbone:
    """The backbone described by the record at path ``name``."""
    record = Path(name)
    values = _read_record(record)
    architecture = str(values.pop("architecture"))
    file = weights or record.parent / str(values.pop("weights"))
    values.pop("weights", None)
    where = f"local:{name}"
    digest = sha256(file) if state is None and os.path.isfile(file) else ""
    spec = BackboneSpec.from_dict({"filter": "bicubic", **values, "key": where, "weights": str(file), "sha256": digest})
    found = read_weights(file) if state is None else state
    if architecture.startswith("torchvision:"):
        from captioner.backbones.torchvision import classifier, truncate

        return truncate(classifier(architecture.partition(":")[2]), spec, lambda: found)
    network = _call(record.parent, architecture, where)
    fit_weights(network, found, where)
    return Backbone(spec, network.eval(), reader(network, spec.output, where))


def require_trust(name: str) -> None:
    """Raise ``BackboneError`` for a record with a Python file, unless ``$CAPTIONER_TRUST_RECORDS`` is 1.

    A model from a stranger could name such a record, and the user would run the file without having chosen to.
    """
    architecture = str(_read_record(Path(name))["architecture"])
    if not architecture.startswith("torchvision:") and os.environ.get(TRUST) != "1":
        raise BackboneError(
            f"local:{name}: the model uses this record, which runs a Python file; if you trust it, set {TRUST}=1"
        )


def _read_record(path: Path) -> dict[str, Any]:
    values = read_yaml(path, BackboneError)
    if not isinstance(values, dict):
        raise BackboneError(f"{path}: a backbone record must be a mapping of fields to values")
    for field in ("architecture", "weights", "size"):
        if field not in values:
            raise BackboneError(f"{path}: the record lacks {field!r}")
    try:
        return {name: convert(HINTS.get(name, str), value, f"{path}: {name}") for name, value in values.items()}
    except ConfigError as error:
        raise BackboneError(str(error)) from None


def _call(folder: Path, architecture: str, where: str) -> nn.Module:
    """The network that a function (or class) of a Python file returns."""
    file, colon, function = architecture.rpartition(":")
    path = folder / file
    if not colon or not os.path.isfile(path):  # False for a name that is too long, for which Path raises
        raise BackboneError(
            f"{where}: architecture {shorten(architecture)} must be FILE.py:FUNCTION, a file beside the record"
        )
    spec = importlib.util.spec_from_file_location(f"captioner_local_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        network = getattr(module, function)()
    except Exception as error:  # the user's code may raise anything
        raise BackboneError(f"{where}: {path}:{function} failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise BackboneError(f"{where}: {function} returned a {type(network).__name__}, not a network")
    return network
