"""The default model's CNN as a backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from captioner import load
from captioner.backbones import load_backbone
from captioner.checkpoint import load_checkpoint, save_checkpoint
from captioner.errors import BackboneError
from captioner.predictors import MODELS
from tests.tiny import save_images


def trained_on(path: Path, key: str, weights: Path | None = None) -> Path:
    """The default model's decoder as if it had been trained on features of a backbone whose weights it lacks."""
    known = load_checkpoint(MODELS["default"])
    spec = load_backbone(key, weights).spec
    save_checkpoint(path, known.task, known.model, known.config, [spec], known.outputs)
    return path


def test_a_decoder_trained_on_its_features_finds_it_again(tmp_path: Path) -> None:
    """Would catch weights that are read before their scales are applied, and captions by another network."""
    photo = save_images(tmp_path / "photos", 1)[0]
    model = trained_on(tmp_path / "model.safetensors", "default")
    assert load(model).caption(photo) == load().caption(photo)


def test_a_decoder_trained_on_other_weights_says_so(tmp_path: Path) -> None:
    """Would catch captions by the weights that ship for a decoder that never saw their features."""
    state = load_backbone("default").network.state_dict()
    name = next(name for name, value in state.items() if value.ndim == 4)
    save_file({**state, name: state[name] * 2}, tmp_path / "mine.safetensors")
    model = trained_on(tmp_path / "model.safetensors", "default", tmp_path / "mine.safetensors")
    with pytest.raises(BackboneError, match=r"was trained on default with weights \w+, those here are \w+"):
        load(model, runtime="torch").caption(save_images(tmp_path / "photos", 1)[0])


def test_weights_of_another_network_do_not_fit(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(BackboneError, match="lack"):
        load_backbone("default", tmp_path / "x.safetensors")
