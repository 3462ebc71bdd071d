"""The scripts that make the default model, on a toy teacher and toy pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from captioner.backbones.compact import CompactCNN
from captioner.checkpoint import load_checkpoint
from captioner.pipeline import load
from scripts import distil_cnn, pack_model
from tests.tiny import save_pictures, save_tiny

TEACHER = """
import torch
from torch import nn

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1280, 32, 32)
        self.classifier = nn.Linear(1280, 7)
    def preprocess(self, pictures):
        return pictures.float() / 255
    def feature_map(self, pictures):
        return self.layer(pictures).relu()
"""


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """The record of a teacher with random weights."""
    (tmp_path / "model.py").write_text(TEACHER)
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(TEACHER, scope)
    torch.manual_seed(0)
    save_file(scope["Toy"]().state_dict(), tmp_path / "model.safetensors")
    record = tmp_path / "teacher.yaml"
    record.write_text("architecture: model.py:Toy\nweights: model.safetensors\nsize: 64\noutput: feature_map()\n")
    return record


def test_distillation_learns_and_resumes(teacher: Path, tmp_path: Path) -> None:
    """Would catch a student that is not trained, and a restart that begins again."""
    save_pictures(tmp_path / "pictures", 6)
    output = tmp_path / "run" / "cnn.safetensors"
    command = f"--teacher {teacher} --images {tmp_path / 'pictures'} -o {output} --batch-size 4".split()
    assert distil_cnn.main([*command, "--steps", "2"]) == 0
    first = load_file(output)
    assert distil_cnn.main([*command, "--steps", "3"]) == 0
    second = load_file(output)
    CompactCNN().load_state_dict(second)
    assert int(second["stem.1.num_batches_tracked"]) == int(first["stem.1.num_batches_tracked"]) + 1
    assert any(not torch.equal(first[name], second[name]) for name in first if name.endswith("weight"))


def test_a_teacher_without_a_classifier_is_one_line(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.py").write_text(TEACHER.replace("self.classifier", "self.other"))
    state = load_file(tmp_path / "model.safetensors")
    save_file({k.replace("classifier", "other"): v for k, v in state.items()}, tmp_path / "model.safetensors")
    save_pictures(tmp_path / "pictures", 2)
    arguments = f"--teacher {teacher} --images {tmp_path / 'pictures'} -o {tmp_path / 'cnn.safetensors'}".split()
    assert distil_cnn.main(arguments) == 1
    assert "classifier" in capsys.readouterr().err


def test_packing_keeps_the_cnn_and_halves_the_file(tmp_path: Path) -> None:
    """Would catch a packed model with another CNN, or whose search is not the one that was asked for."""
    source = save_tiny(tmp_path / "best.safetensors")
    photo = save_pictures(tmp_path / "pictures", 1)[0]
    packed = tmp_path / "packed.safetensors"
    pack_model.pack(source, None, packed, beam=2, length_penalty=0.5)
    assert packed.stat().st_size < 0.6 * source.stat().st_size
    decode = load_checkpoint(packed).decode
    assert (decode.beam, decode.length_penalty) == (2, 0.5)
    before, after = load_checkpoint(source).backbone_states[0], load_checkpoint(packed).backbone_states[0]
    assert before is not None and after is not None
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    assert load(packed).caption(photo)
    assert json.loads(json.dumps(load_checkpoint(packed).backbones[0].to_dict()))["weights"] == ""
