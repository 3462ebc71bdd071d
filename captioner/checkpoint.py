"""A trained model in one file: task, weights, configuration, inputs, outputs and provenance.

A safetensors file with tensors ``model.NAME`` and, if a backbone's weights are saved too, ``backbone.INDEX.NAME``.
A matrix or kernel in int8 has the scales of its rows in another tensor, ``NAME.scale``. The header has one JSON entry:

    format, version
    task          name in captioner.tasks.base.TASKS
    config        the task's sections, as in a configuration file
    inputs        a FeatureSpec or BackboneSpec for each feature that the model reads
    outputs       {"kind": "vocabulary" or "classes", "names": [...]}
    provenance    versions, hardware, commit
    extra         training settings, epoch, dev metrics
    checksum      CRC-32 of the tensors; older files have none

Opening one never executes anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from captioner.config import from_mapping, to_mapping
from captioner.decoding.config import DecodingConfig
from captioner.errors import CheckpointError
from captioner.features.spec import FeatureSpec
from captioner.files import atomic_path, not_finite, sha256
from captioner.model_file import FORMAT, RESTORE, SCALE, VERSION, checksum, damaged_header, read_header, read_weights
from captioner.provenance import provenance
from captioner.skip_init import skip_init
from captioner.tasks.base import find_task

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file."""

    task: str
    """Name of the task."""
    model: Any
    """The network, in float32 on the CPU, in evaluation mode."""
    config: Any
    """The task's configuration, an instance of its config dataclass."""
    inputs: tuple[FeatureSpec, ...]
    """The features that the model reads, concatenated in this order; none for a model of text."""
    outputs: Any
    """The meaning of the outputs: a ``Vocabulary`` or ``ClassNames``."""
    backbone_states: tuple[dict[str, Tensor] | None, ...] = ()
    """Float32 weights of each input's backbone, None if the file has none."""
    provenance: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    """Other metadata saved with it, such as dev metrics."""
    path: Path | None = None
    """The file, if it came from one."""

    @property
    def decoding(self) -> DecodingConfig:
        """The model's decoding settings."""
        found: DecodingConfig = self.config.decoding
        return found

    @property
    def data(self) -> Mapping[str, Any]:
        """The data section of the configuration that the model was trained with."""
        return dict(to_mapping(self.config).get("data", {}))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, computed on first use; empty without a file."""
        return sha256(self.path) if self.path else ""


def save_checkpoint(
    path: str | Path,
    task: str,
    model: nn.Module,
    config: Any,
    inputs: Sequence[FeatureSpec],
    outputs: Any,
    *,
    extra: Mapping[str, Any] | None = None,
    backbone_states: Sequence[State | None] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint, atomically. ``extra`` must consist of JSON values.

    ``dtype`` applies to matrices and kernels: float16 halves the file; int8 quarters it, with each row of a matrix and
    each output channel of a kernel scaled to at most 127; small kernels, such as depthwise ones, become float16.
    Vectors, such as biases and batch statistics, keep their type. Raises ``CheckpointError`` if model, config, inputs
    and outputs do not fit each other, or values do not fit the dtype.
    """
    state = _state_to_save(str(path), model, _build(task, config, inputs, outputs))
    contents = {
        "format": FORMAT,
        "version": VERSION,
        "task": task,
        "config": to_mapping(config),
        "inputs": [spec.to_dict() for spec in inputs],
        "provenance": provenance(),
        "extra": dict(extra or {}),
        "outputs": {"kind": outputs.kind, "names": outputs.to_list()},
    }
    tensors = {f"model.{name}": tensor for name, tensor in state.items()}
    for index, backbone in enumerate(backbone_states or ()):
        tensors.update({f"backbone.{index}.{name}": tensor for name, tensor in (backbone or {}).items()})
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if dtype == torch.int8 and tensor.is_floating_point() and _row_is_long(tensor):
            stored[name], stored[name + SCALE] = _quantized(tensor)
        else:
            stored[name] = _stored(f"{path}: {name}", tensor, torch.float16 if dtype == torch.int8 else dtype)
    contents["checksum"] = checksum({name: tensor.numpy() for name, tensor in stored.items()})
    with atomic_path(path) as temporary:
        # One entry: safetensors does not fix the order of several, and equal checkpoints should be equal files.
        safetensors.torch.save_file(stored, temporary, {FORMAT: json.dumps(contents, ensure_ascii=False)})


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; all of it is checked, and no code is executed.

    Raises ``CheckpointError`` for a file that is missing, damaged, no checkpoint or of another version, and if parts
    do not fit each other, naming both.
    """
    header = read_header(path)
    try:
        config: Any = from_mapping(find_task(header.task).config, header.config, "config")
        model = _build(header.task, config, header.inputs, header.outputs)
    except Exception as error:  # a bad header may raise any error
        raise damaged_header(path, error) from error
    tensors = {name: torch.from_numpy(array) for name, array in read_weights(header).items()}
    found = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    wanted = _unshared(model)
    _compare(str(path), wanted, found)
    with torch.no_grad():
        for name, tensor in found.items():
            wanted[name].copy_(tensor)
    states = tuple(_backbone_state(tensors, index) for index in range(len(header.inputs)))
    return Checkpoint(
        header.task,
        model.eval(),
        config,
        header.inputs,
        header.outputs,
        states,
        header.provenance,
        header.extra,
        Path(path),
    )


def _build(task: str, config: Any, inputs: Sequence[FeatureSpec], outputs: Any) -> nn.Module:
    """Build the task's network without initializing its weights."""
    with skip_init():
        return find_task(task).build(config, inputs, outputs)


def _state_to_save(path: str, model: nn.Module, empty: nn.Module) -> dict[str, Tensor]:
    """The model's tensors, if they are finite and match the ``empty`` model that its configuration builds."""
    state = _unshared(model)
    _compare(path, _unshared(empty), state)
    if bad := not_finite(state):
        raise CheckpointError(f"{path}: not written: model.{bad} holds values that are not finite; lower train.lr")
    return state


def _unshared(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors by name; a parameter with several names (tied weights) only under the first."""
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    return {name: tensor.detach() for name, tensor in state.items() if first.setdefault(id(tensor), name) == name}


def _compare(path: str, wanted: State, found: State) -> None:
    """Raise ``CheckpointError`` unless names, shapes and types match the configuration."""
    for name, tensor in found.items():
        got, expected = tuple(tensor.shape), tuple(wanted[name].shape) if name in wanted else None
        if expected is not None and got != expected:
            raise CheckpointError(
                f"{path}: model.{name} is {got}, but configuration, inputs and outputs require {expected}"
            )
        if name in wanted and tensor.is_floating_point() != wanted[name].is_floating_point():
            raise CheckpointError(f"{path}: model.{name} is {tensor.dtype}, not {wanted[name].dtype}; {RESTORE}")
    for reason, one, other in (("is missing", wanted, found), ("has no place in its configuration", found, wanted)):
        odd = sorted(set(one) - set(other))
        if odd:
            more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
            raise CheckpointError(f"{path}: tensor model.{odd[0]}{more} {reason}")


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor as it is saved: on the CPU and, for a matrix or kernel, of ``dtype``."""
    tensor = tensor.detach().cpu()
    if dtype is not None and tensor.ndim > 1 and tensor.is_floating_point():
        if tensor.isfinite().all() and not tensor.to(dtype).isfinite().all():
            raise CheckpointError(f"{name} has values too large for {dtype}; save it without a dtype")
        tensor = tensor.to(dtype)
    return tensor.contiguous()


def _row_is_long(tensor: Tensor) -> bool:
    """Whether int8 with a scale for each row saves bytes without rounding many values because of the largest one."""
    return tensor.ndim == 2 or (tensor.ndim > 2 and tensor[0].numel() >= 32)


def _quantized(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (rows, ...) in int8 and the scale of each row (rows,) float32: weights = int8 * scale."""
    weights = weights.detach().cpu().float()
    scale = weights.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
    return (weights / scale.view(-1, *[1] * (weights.ndim - 1))).round().to(torch.int8), scale


def _backbone_state(tensors: State, index: int) -> dict[str, Tensor] | None:
    """Weights of the backbone ``index``, floats as float32; None if the file has none."""
    prefix = f"backbone.{index}."
    state = {
        name.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return state or None
