"""The state of an unfinished run in one safetensors file, without pickle: tensors, and JSON in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from captioner.errors import CheckpointError
from captioner.files import atomic_path, not_finite, read_tensors

FORMAT = "captioner-training-state"
VERSION = "2"


def save_state(
    path: Path,
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    metadata: dict[str, Any],
) -> None:
    """Write weights, optimizer moments, moving average and ``metadata`` (JSON values), atomically.

    One file holds everything, so a kill can never leave parts of two different steps.
    """
    tensors = {f"learner.{name}": value for name, value in learner.state_dict().items()}
    tensors |= {f"average.{i}": value for i, value in enumerate(average)}
    scalars: dict[str, Any] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            key = f"optimizer.{index}.{name}"
            if isinstance(value, Tensor):
                tensors[key] = value
            else:
                scalars[key] = value
    header = {"format": FORMAT, "version": VERSION, "metadata": json.dumps(metadata), "scalars": json.dumps(scalars)}
    # clone(): tied or flattened weights share memory, which safetensors refuses
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=header)


def load_state(
    path: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, average: list[Tensor]
) -> dict[str, Any]:
    """Load a saved state into its owners and return its ``metadata``; raises ``CheckpointError`` if it does not fit."""
    tensors, header = _read(path)
    scalars = _parse(path, header, "scalars")
    if bad := not_finite(tensors):
        raise CheckpointError(f"{path}: {bad} holds values that are not finite; start over with --no-resume")
    try:
        learner.load_state_dict(_under(tensors, "learner."))
        slots: dict[int, dict[str, Any]] = {}
        for key, value in {**_under(tensors, "optimizer."), **_under(scalars, "optimizer.")}.items():
            index, name = key.split(".", 1)
            # clone(): safetensors maps the file into memory, and Windows replaces no mapped file
            slots.setdefault(int(index), {})[name] = value.clone() if isinstance(value, Tensor) else value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        with torch.no_grad():
            for i, average_tensor in enumerate(average):
                average_tensor.copy_(tensors[f"average.{i}"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}; start over with --no-resume") from None
    return _parse(path, header, "metadata")


def read_metadata(path: Path) -> dict[str, Any]:
    """Read only the ``metadata``, from the header."""
    _, header = _read(path, None)
    return _parse(path, header, "metadata")


def _parse(path: Path, header: dict[str, str], name: str) -> dict[str, Any]:
    """An entry of the header, a JSON object."""
    try:
        values = json.loads(header[name])
        if isinstance(values, dict):
            return values
    except (KeyError, ValueError, RecursionError):
        pass
    raise CheckpointError(f"{path}: its header is damaged at {name!r}; start over with --no-resume")


def _read(path: Path, prefix: str | None = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors, header = read_tensors(path, prefix)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; start over with --no-resume") from None
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise CheckpointError(f"{path}: not a training state of version {VERSION}; start over with --no-resume")
    return tensors, header


def _under(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}
