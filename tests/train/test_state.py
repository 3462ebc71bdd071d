"""The file of an unfinished run. That a resumed run ends as an unbroken one is tested in test_trainer.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from captioner.errors import CheckpointError
from captioner.train.state import load_state, read_metadata, save_state

STORED = Path(__file__).parents[1] / "fixtures" / "training-state-v2.safetensors"


def test_a_stored_file_of_this_version_is_read() -> None:
    """Would catch a change of the format without a new version number. Written by tests/fixtures/make_formats.py."""
    learner, average = nn.Linear(2, 1), [torch.zeros(1, 2)]
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.1)
    assert load_state(STORED, learner, optimizer, average) == read_metadata(STORED) == {"step": 1}
    assert average[0].tolist() == [[1, 1]]
    # One step of AdamW at a learning rate of 0.1 from -1, 1 with gradients of 1 and weight decay of 0.01.
    assert learner.weight.tolist() == [[pytest.approx(-1.099), pytest.approx(0.899)]]
    moments = optimizer.state_dict()["state"][0]
    assert float(moments["step"]) == 1 and moments["exp_avg"].tolist() == [[pytest.approx(0.1), pytest.approx(0.1)]]


def test_a_state_of_another_model_is_refused() -> None:
    learner = nn.Linear(3, 1)
    with pytest.raises(CheckpointError, match="size mismatch for weight.*; start over with --no-resume"):
        load_state(STORED, learner, torch.optim.AdamW(learner.parameters()), [])


@pytest.mark.parametrize("metadata", ["[" * 20_000, "[1]", "9" * 5000, "{"])
def test_a_damaged_header_is_one_error(tmp_path: Path, metadata: str) -> None:
    """Would catch a traceback, where starting over helps."""
    header = {"format": "captioner-training-state", "version": "2", "metadata": metadata}
    save_file({"learner.x": torch.ones(1)}, tmp_path / "state", header)
    with pytest.raises(CheckpointError, match="its header is damaged at 'metadata'; start over with --no-resume"):
        read_metadata(tmp_path / "state")


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """Would catch a run that goes on from damaged weights."""
    learner = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(learner.parameters())
    learner.weight.data[0, 1] = torch.nan
    save_state(tmp_path / "state", learner, optimizer, [], {})
    with pytest.raises(CheckpointError, match="learner.weight holds values that are not finite; start over"):
        load_state(tmp_path / "state", learner, optimizer, [])


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists a process's mapped files")
def test_no_tensor_stays_in_the_file(tmp_path: Path) -> None:
    """Would catch a resumed run that can't save, because Windows replaces no file that is mapped into memory."""
    learner = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(learner.parameters())
    learner(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "state"
    save_state(path, learner, optimizer, [], {})
    load_state(path, learner, optimizer, [])
    assert str(path) not in Path("/proc/self/maps").read_text()
