"""One file that is all of a captioner: weights, configuration, vocabulary, backbones and where it comes from.

A safetensors file with tensors ``decoder.NAME`` and, where a backbone's weights come along, ``backbone.INDEX.NAME``.
A matrix in int8 has its rows' scales beside it, ``NAME.scale``.
Its header holds one entry of JSON with the rest. Opening one never executes anything.
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
from torch import Tensor

from captioner.config import ModelConfig, from_mapping, to_mapping
from captioner.decoding.config import DecodingConfig
from captioner.errors import CaptionerError, CheckpointError
from captioner.features.spec import FeatureSpec, read_spec
from captioner.files import atomic_path, read_tensors, sha256
from captioner.models.lrcn import ImageCaptioner
from captioner.provenance import provenance
from captioner.text.vocabulary import Vocabulary

FORMAT = "captioner-checkpoint"
VERSION = 1
SCALE = ".scale"
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    model: ImageCaptioner
    """The decoder, in float32 on the processor, for evaluation."""
    vocabulary: Vocabulary
    backbones: tuple[FeatureSpec, ...]
    """Whose features, concatenated in this order, the model takes; none for a model of text."""
    decoding: DecodingConfig
    """How captions are found when nobody says otherwise."""
    backbone_states: tuple[dict[str, Tensor] | None, ...] = ()
    """Weights of each backbone in float32, None where the file has none."""
    provenance: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    """Whatever else was saved with it, such as scores."""
    path: Path | None = None
    """The file, if it came from one."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, read when it is asked for; empty without a file."""
        return sha256(self.path) if self.path else ""


def save_checkpoint(
    path: str | Path,
    model: ImageCaptioner,
    vocabulary: Vocabulary,
    backbones: Sequence[FeatureSpec],
    decoding: DecodingConfig,
    *,
    extra: Mapping[str, Any] | None = None,
    backbone_states: Sequence[State | None] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint, whole or not at all. ``extra`` must be fit for JSON.

    ``dtype`` is for matrices and kernels: float16 halves the file; int8 quarters the matrices, whose rows are scaled to
    at most 127 each, and makes kernels float16. Vectors, such as biases and batch statistics, are small and stay as
    they are. Raises ``CheckpointError`` where the parts do not fit each other or the dtype.
    """
    _check_sizes(str(path), vocabulary, backbones, model.vocabulary_size, model.feature_size)
    contents = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_mapping(model.config),
        "decoding": to_mapping(decoding),
        "feature_size": model.feature_size,
        "backbones": [spec.to_dict() for spec in backbones],
        "provenance": provenance(),
        "extra": dict(extra or {}),
        "vocabulary": vocabulary.to_list(),
    }
    tensors = {f"decoder.{name}": tensor for name, tensor in _decoder_state(model).items()}
    for index, state in enumerate(backbone_states or ()):
        tensors.update({f"backbone.{index}.{name}": tensor for name, tensor in (state or {}).items()})
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if dtype == torch.int8 and tensor.ndim == 2 and tensor.is_floating_point():
            stored[name], stored[name + SCALE] = _quantized(tensor)
        else:
            stored[name] = _stored(f"{path}: {name}", tensor, torch.float16 if dtype == torch.int8 else dtype)
    with atomic_path(path) as temporary:
        # One entry, because safetensors orders several as it likes and equal checkpoints are to be equal files.
        safetensors.torch.save_file(stored, temporary, {FORMAT: json.dumps(contents, ensure_ascii=False)})


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; it is checked in full and never executes anything.

    Raises ``CheckpointError`` for a file that is missing, damaged, no checkpoint or of another version, and for parts
    that do not fit each other, naming both.
    """
    tensors, header = _read(Path(path))
    contents = _parse(path, header)
    try:
        config = from_mapping(ModelConfig, contents["config"], "config")
        decoding = from_mapping(DecodingConfig, contents["decoding"], "decoding")
        vocabulary = Vocabulary.from_list(contents["vocabulary"])
        backbones = tuple(read_spec(spec) for spec in contents["backbones"])
        feature_size = int(contents["feature_size"])
        facts, extra = dict(contents["provenance"]), dict(contents["extra"])
        names = [name for spec in backbones for name in spec.names]
        model = ImageCaptioner.empty(config, len(vocabulary), feature_size, names)
    except (CaptionerError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its header is not as it should be: {type(error).__name__}: {error}") from error
    rows = tensors["decoder.embedding.weight"].shape[0] if "decoder.embedding.weight" in tensors else len(vocabulary)
    _check_sizes(str(path), vocabulary, backbones, rows, feature_size)
    _fill(path, model, {name[len("decoder.") :]: t for name, t in tensors.items() if name.startswith("decoder.")})
    states = tuple(_backbone_state(tensors, index) for index in range(len(backbones)))
    return Checkpoint(model.eval(), vocabulary, backbones, decoding, states, facts, extra, Path(path))


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """All tensors of a checkpoint file, and its header's entry."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    tensors, entries = read_tensors(path)
    if FORMAT not in entries:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of captioner")
    for name in [name for name, tensor in tensors.items() if tensor.dtype == torch.int8 and name + SCALE in tensors]:
        tensors[name] = tensors[name] * tensors.pop(name + SCALE)[:, None]
    return tensors, entries[FORMAT]


def _parse(path: str | Path, header: str) -> dict[str, Any]:
    """The header's entry as a dictionary of the version that is read here."""
    try:
        contents = json.loads(header)
        version = contents["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error})") from error
    if version != VERSION:
        raise CheckpointError(f"{path}: a checkpoint of version {version}; this captioner reads version {VERSION}")
    return dict(contents)


def _decoder_state(model: ImageCaptioner) -> dict[str, Tensor]:
    """Tensors of the decoder; a tied softmax is stored once, as the word vectors."""
    state = model.state_dict()
    if model.config.tied:
        del state["softmax.weight"]
    return state


def _fill(path: str | Path, model: ImageCaptioner, tensors: State) -> None:
    """Copy stored tensors into the model, once names and shapes are found equal."""
    wanted = _decoder_state(model)
    for name, one, other in (("is missing", wanted, tensors), ("has no place in its configuration", tensors, wanted)):
        odd = sorted(set(one) - set(other))
        if odd:
            more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
            raise CheckpointError(f"{path}: tensor decoder.{odd[0]}{more} {name}")
    for name, tensor in tensors.items():
        got, expected = tuple(tensor.shape), tuple(wanted[name].shape)
        if got != expected:
            raise CheckpointError(f"{path}: decoder.{name} is {got} in the file, its configuration wants {expected}")
        wanted[name].copy_(tensor)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor as it goes into the file: on the processor and, for a matrix or kernel, of ``dtype``."""
    tensor = tensor.detach().cpu()
    if dtype is not None and tensor.ndim > 1 and tensor.is_floating_point():
        if tensor.isfinite().all() and not tensor.to(dtype).isfinite().all():
            raise CheckpointError(f"{name} has values too large for {dtype}; save it without a dtype")
        tensor = tensor.to(dtype)
    return tensor.contiguous()


def _quantized(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (rows, columns) in int8, and what each row is multiplied with to be itself again, (rows,) float32."""
    matrix = matrix.detach().cpu().float()
    scale = matrix.abs().amax(1).clamp(min=1e-12) / 127
    return (matrix / scale[:, None]).round().to(torch.int8), scale


def _backbone_state(tensors: State, index: int) -> dict[str, Tensor] | None:
    """Weights of the backbone ``index``, floats as float32; None where there are none."""
    prefix = f"backbone.{index}."
    state = {
        name.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return state or None


def _check_sizes(
    path: str, vocabulary: Vocabulary, backbones: Sequence[FeatureSpec], rows: int, feature_size: int
) -> None:
    """Vocabulary against word vectors, backbones against the decoder's feature."""
    if len(vocabulary) != rows:
        raise CheckpointError(f"{path}: the vocabulary has {len(vocabulary)} words, the decoder {rows}")
    given = sum(spec.dimension for spec in backbones)
    if backbones and given != feature_size:
        names = " + ".join(f"{spec.key} {spec.dimension}" for spec in backbones)
        raise CheckpointError(f"{path}: the backbones give {given} numbers ({names}), the decoder takes {feature_size}")
