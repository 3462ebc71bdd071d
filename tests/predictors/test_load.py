"""load(): which model, which predictor, which device."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner import load
from captioner.checkpoint import save_checkpoint
from captioner.errors import CheckpointError, UsageError
from captioner.models.lrcn import LRCNConfig
from captioner.predictors.base import is_label_predictions
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.tasks.sentences.config import LanguageModelConfig
from captioner.tasks.sentences.runs import build_model
from captioner.text.vocabulary import SPECIALS, Vocabulary
from tests import tiny


def test_what_cannot_be_loaded_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nonsense: no such model; give default"):
        load("nonsense")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load(tmp_path)
    (tmp_path / "text.safetensors").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match="text.safetensors"):
        load(tmp_path / "text.safetensors")


def test_a_runs_folder_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    tiny.save_tiny(tmp_path / "best.safetensors")
    captioner = load(tmp_path)
    assert isinstance(captioner, LRCNCaptioner)
    assert captioner.name == str(tmp_path)


@pytest.mark.parametrize("device", ["toaster", "meta", "cuda:99"])
def test_a_device_that_is_not_there(device: str, tmp_path: Path) -> None:
    path = tiny.save_tiny(tmp_path / "tiny.safetensors")
    with pytest.raises(UsageError, match=f"^device '{device}' is not available; use --device cpu$"):
        load(path, device=device)


def test_a_language_model_has_no_predictor(tmp_path: Path) -> None:
    """Would catch a model of text that is asked for captions of images."""
    vocabulary, config = Vocabulary((*SPECIALS, "a")), LanguageModelConfig(LRCNConfig(hidden_dim=4))
    path = tmp_path / "text.safetensors"
    save_checkpoint(path, "language_model", build_model(config, [], vocabulary), config, [], vocabulary)
    with pytest.raises(CheckpointError, match="trained for the task 'language_model'"):
        load(path)


def test_label_predictions_are_told_from_videos(tmp_path: Path) -> None:
    hdf5, video = tmp_path / "labels", tmp_path / "video.mp4"
    hdf5.write_bytes(b"\x89HDF\r\n\x1a\n and more")
    video.write_bytes(b"ftyp")
    assert is_label_predictions(hdf5)
    assert is_label_predictions("missing.h5")
    assert not is_label_predictions(video)
    assert not is_label_predictions("missing.mp4")
