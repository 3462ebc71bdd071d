"""Checkpoints, CRFs, weight files and the state of an unfinished run; records and logs beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captioner.backbones.local import build
from captioner.backbones.weights import fit_weights, read_weights
from captioner.checkpoint import load_checkpoint
from captioner.crf.clips import ClipArrays
from captioner.crf.model import load_crf
from captioner.crf.predictor import predict
from captioner.errors import BackboneError
from captioner.files import read_tensors
from captioner.predictors.features import FeatureCaptioner
from captioner.predictors.torch_runtime import TorchRuntime
from captioner.train.runlog import RunLog, read_log
from captioner.train.state import load_state, read_metadata
from tests.fuzz import NUMBERS, check_error, corrupted, damaged, damaged_file, fuzz, reshaped
from tests.fuzz.worker import isolated

FIXTURES = Path(__file__).parents[1] / "fixtures"
TYPES = [torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.int64, torch.bool,
         torch.uint8, torch.float8_e5m2, torch.complex64]  # fmt: skip
RECORD = b"architecture: a.py:make\nweights: a.safetensors\nsize: 8\nmean: [0, 0.5, 1]\nstd: 1\noutput: features\n"
LOG = b"".join(
    json.dumps({"step": n, **more}).encode() + b"\n"
    for n, more in enumerate([{"kind": "start"}, {"kind": "epoch", "epoch": 1, "train_loss": 2.5, "bleu4": 0.5}])
)


def checkpoint(path: Path) -> None:
    """Load a checkpoint and caption with it."""
    found = load_checkpoint(path)
    assert all(tensor.isfinite().all() for tensor in found.model.state_dict().values())
    json.dumps([spec.to_dict() for spec in found.inputs])
    size = sum(spec.dimension for spec in found.inputs)
    captioner = FeatureCaptioner(TorchRuntime(found))
    for ranked in captioner.decode(
        np.ones((2, size), np.float32), captioner._config({"max_length": 5, "beam_size": 2}, 2)
    ):
        assert all(math.isfinite(caption.log_prob) and caption.text.encode() is not None for caption in ranked)


def crf(path: Path) -> None:
    """Load a CRF and predict with all its models."""
    found = load_crf(path)
    for model in (found.model, *(fold.model for fold in found.folds)):
        features = np.ones((2, model.feature_dim), np.float32)
        arrays = ClipArrays(["a", "b"], ["v", "v"], features, np.full((2, len(model.sizes)), -1))
        for node in predict(model, arrays)[0].nodes.values():
            assert np.allclose(np.exp(node.log_marginals).sum(1), 1, atol=1e-3)
    json.dumps([dict(found.training), dict(found.provenance)])


def state(path: Path) -> None:
    """Put a state into a learner that it belongs to, as a resumed run does."""
    learner = nn.Linear(2, 1)
    average = [torch.ones(1, 2)]
    load_state(path, learner, torch.optim.AdamW(learner.parameters(), lr=0.1), average)
    assert isinstance(read_metadata(path), dict)
    assert all(tensor.isfinite().all() for tensor in [*learner.parameters(), *average])


def weights(path: Path) -> None:
    """Put a weight file into a network."""
    network = nn.Linear(2, 1)
    try:
        state = read_weights(path)
    except BackboneError as error:  # PyTorch may have reserved what a damaged size says, without filling it
        check_error(error)
        return
    fit_weights(network, state, str(path))
    assert all(tensor.isfinite().all() for tensor in network.parameters())


FILES: dict[str, Callable[[Path], None]] = {"checkpoint-v2": checkpoint, "crf-v2": crf, "training-state-v2": state}


@pytest.mark.parametrize("name", [*FILES])
@given(data=st.data())
@fuzz
def test_damaged_files(tmp_path: Path, name: str, data: st.DataObject) -> None:
    """Would catch an error of safetensors' or of a header's parts, and values that are no numbers."""
    path = tmp_path / "a.safetensors"
    valid = FIXTURES / f"{name}.safetensors"
    path.write_bytes(data.draw(corrupted(valid.read_bytes())))
    isolated(FILES[name], path)


@pytest.mark.parametrize("name", [*FILES])
@given(data=st.data())
@fuzz
def test_other_contents(tmp_path: Path, name: str, data: st.DataObject) -> None:
    """Would catch tensors and a header that fit the format, but not each other."""
    path = tmp_path / "a.safetensors"
    tensors, entries = read_tensors(FIXTURES / f"{name}.safetensors")
    for _ in range(data.draw(st.integers(0, 2))):
        change_tensor(data.draw, tensors)
    if data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(entries)))
        entries[key] = data.draw(changed_entry(entries[key]))
    safetensors.torch.save_file(tensors, path, entries)
    isolated(FILES[name], path)


def changed_entry(text: str) -> st.SearchStrategy[str]:
    found = damaged(text.encode()).map(lambda content: content.decode(errors="replace"))
    return found | reshaped(json.loads(text)).map(json.dumps) if text.startswith("{") else found


def change_tensor(draw: st.DrawFn, tensors: dict[str, Tensor]) -> None:
    """Remove, rename or retype a tensor, give it another shape, or change a value."""
    name = draw(st.sampled_from(sorted(tensors)))
    kind = draw(st.sampled_from(["remove", "rename", "type", "shape", "value", "value", "scale"]))
    tensor = tensors.pop(name).clone()
    if kind == "rename":
        tensors[draw(st.sampled_from([name + ".scale", "model.a", "a", name.partition(".")[0]]))] = tensor
    elif kind == "type":
        tensors[name] = (tensor.real if tensor.is_complex() else tensor).to(draw(st.sampled_from(TYPES))).contiguous()
    elif kind == "shape":
        shapes = [tensor.flatten(), tensor[None], tensor[:0] if tensor.ndim else tensor, torch.zeros(2, 3)]
        tensors[name] = draw(st.sampled_from(shapes))
    elif kind == "value":
        number = draw(st.sampled_from([float(n) for n in NUMBERS if abs(n) < 10**300] + [3e38, -3e38]))
        if tensor.numel():
            tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = number if tensor.is_floating_point() else 0
        tensors[name] = tensor
    elif kind == "scale":
        tensors[name] = torch.ones(tensor.shape, dtype=torch.int8)
        tensors[name + ".scale"] = torch.full(tensor.shape[:1], draw(st.sampled_from([0.0, 1.0, 3e38, math.nan])))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@given(data=st.data())
@fuzz
def test_damaged_weights(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    """Would catch pickled code that runs, and an error without a text."""
    path = tmp_path / f"a{suffix}"
    valid = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    if suffix == ".pth":
        torch.save(valid, path)
    else:
        safetensors.torch.save_file(valid, path)
    path.write_bytes(data.draw(corrupted(path.read_bytes()) | damaged(path.read_bytes())))
    isolated(weights, path)


@given(data=st.data())
@fuzz
def test_damaged_records(tmp_path: Path, data: st.DataObject) -> None:
    """Would catch a YAML record whose fields are of other types."""
    (tmp_path / "a.py").write_text("from torch import nn\nmake = lambda: nn.Identity()\n")
    safetensors.torch.save_file({}, tmp_path / "a.safetensors")
    path = tmp_path / "a.yaml"
    path.write_bytes(data.draw(damaged(RECORD)))
    isolated(backbone, path)


def backbone(path: Path) -> None:
    build(str(path), None, None)


@given(data=st.data())
@fuzz
def test_damaged_logs(tmp_path: Path, data: st.DataObject) -> None:
    """Would catch a run that cannot be resumed because of its log."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(data.draw(damaged_file(path.name, LOG)))
    isolated(resume_log, path)


def resume_log(path: Path) -> None:
    RunLog(path, 1).write("epoch", 2, epoch=2)
    assert all(record["step"] <= 2 for record in read_log(path))


def test_the_files_that_are_damaged_are_valid() -> None:
    """Would catch a suite that damages what is not read anyway."""
    for name, read in FILES.items():
        read(FIXTURES / f"{name}.safetensors")
