"""Read a checkpoint file without torch: the header, and the tensors as numpy arrays.

``captioner.checkpoint`` describes the layout of the file and builds models from it; ``captioner.export`` adds graphs.
"""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captioner.config import from_mapping
from captioner.decoding.config import DecodingConfig
from captioner.errors import CheckpointError
from captioner.features.spec import FeatureSpec, read_spec
from captioner.files import parse_header, read_arrays, sha256
from captioner.graphs import Graph
from captioner.registry import resolve

FORMAT = "captioner-checkpoint"
VERSION = 2
SCALE = ".scale"
GRAPH = "onnx."
"""Start of the names of the byte tensors that hold a graph."""
WEIGHTS = ".weights"
"""End of the names of the byte tensors that list a graph's weights, one name per line."""
RESTORE = "restore the file from a copy, or train again"
OUTPUTS = {
    "vocabulary": "captioner.text.vocabulary:Vocabulary",
    "classes": "captioner.data.records:ClassNames",
}
"""Class of a model's outputs by the ``kind`` in checkpoints."""
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Header:
    """The header of a checkpoint, which describes its model."""

    path: Path
    task: str
    """Name of the task."""
    config: Mapping[str, Any]
    """The task's sections, as in a configuration file."""
    inputs: tuple[FeatureSpec, ...]
    """The features that the model reads, concatenated in this order; none for a model of text."""
    outputs: Any
    """The meaning of the outputs: a ``Vocabulary`` or ``ClassNames``."""
    provenance: dict[str, str]
    extra: dict[str, Any]
    checksum: Any
    """``checksum`` of the file's tensors; None in files without one."""
    has_graphs: bool
    """Whether the file holds graphs for ONNX Runtime."""

    @cached_property
    def decoding(self) -> DecodingConfig:
        """The model's decoding settings; raises ``ConfigError`` for invalid ones."""
        return from_mapping(DecodingConfig, self.config.get("decoding", {}), f"{self.path}: decoding")

    @property
    def data(self) -> Mapping[str, Any]:
        """The data section of the configuration that the model was trained with."""
        return dict(self.config.get("data", {}))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, computed on first use."""
        return sha256(self.path)


def read_header(path: str | Path) -> Header:
    """Read the header of a checkpoint, without its tensors.

    Raises ``CheckpointError`` for a file that is missing, damaged, no checkpoint or of another version.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    names, entries = read_arrays(path, None)
    if FORMAT not in entries:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of captioner")
    contents = parse_header(path, entries[FORMAT], "a checkpoint", VERSION)
    try:
        outputs = resolve(OUTPUTS, contents["outputs"]["kind"], "kind of outputs")
        return Header(
            path=Path(path),
            task=str(contents["task"]),
            config=dict(contents["config"]),
            inputs=tuple(read_spec(spec) for spec in contents["inputs"]),
            outputs=outputs.from_list(contents["outputs"]["names"]),
            provenance=dict(contents["provenance"]),
            extra=dict(contents["extra"]),
            checksum=contents.get("checksum"),
            has_graphs=any(name.startswith(GRAPH) for name in names),
        )
    except Exception as error:  # a header may hold anything, and raise any error
        raise damaged_header(path, error) from error


def damaged_header(path: str | Path, error: Exception) -> CheckpointError:
    """The error for an invalid header."""
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", 400)
    return CheckpointError(f"{path}: its header is invalid: {reason}")


class Weights(Mapping[str, np.ndarray]):
    """Tensors of a checkpoint by name. Those stored as int8 are multiplied by their rows' scales when they are read."""

    def __init__(self, arrays: Arrays, scales: Arrays) -> None:
        self._arrays = arrays
        self._scales = scales

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._arrays[name]
        if name not in self._scales:
            return array
        found: np.ndarray = array * self._scales[name].reshape(-1, *[1] * (array.ndim - 1))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def read_weights(header: Header) -> Weights:
    """All tensors of a checkpoint.

    Raises ``CheckpointError`` for scales that are missing, values that are not finite, and bytes that changed.
    """
    path = header.path
    arrays, _ = read_arrays(path)
    found = checksum(arrays)
    scales: Arrays = {}
    for name in [name for name, array in arrays.items() if array.dtype == np.int8]:
        scale = arrays.pop(name + SCALE, None)
        if scale is None or scale.dtype.kind != "f" or scale.shape != arrays[name].shape[:1]:
            raise CheckpointError(f"{path}: tensor {name} is int8 without the scales of its rows; {RESTORE}")
        scales[name] = scale
    largest = np.iinfo(np.int8).min
    for name, array in [*arrays.items(), *((name, scale * largest) for name, scale in scales.items())]:
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: tensor {name} holds values that are not finite; {RESTORE}")
    if header.checksum not in (None, found):
        raise CheckpointError(f"{path}: its weights do not match their checksum; {RESTORE}")
    return Weights(arrays, scales)


def read_graph(path: Path, weights: Mapping[str, np.ndarray], name: str) -> Graph:
    """The graph ``name``, such as ``backbone.0`` or ``step``, of the checkpoint ``path`` with the tensors ``weights``.

    Raises ``CheckpointError`` if one of its tensors is missing or damaged.
    """
    try:
        model = weights[f"{GRAPH}{name}"].tobytes()
        names = weights[f"{GRAPH}{name}{WEIGHTS}"].tobytes().decode().split("\n")
        return Graph(model, {one: np.ascontiguousarray(weights[one], np.float32) for one in names})
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: its graph {name} is damaged ({error}); {RESTORE}") from error


def checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of the names and bytes of the weights as they are stored."""
    total = 0
    for name in sorted(arrays):
        if name.startswith(("model.", "backbone.")):
            content = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
            total = zlib.crc32(content.data, zlib.crc32(name.encode(), total))
    return total
