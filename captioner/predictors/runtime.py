"""The runtimes of predictors: torch on any device, or ONNX Runtime on a CPU without torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from captioner.errors import UsageError
from captioner.model_file import Header
from captioner.optional import require

RUNTIMES = ("auto", "onnx", "torch")


class Runtime(Protocol):
    """A loaded model; it is also the ``captioner.decoding.Decoder`` of its states."""

    @property
    def checkpoint(self) -> Any:
        """The ``Checkpoint``, or its ``Header`` if the runtime is not torch."""
        ...

    def prepare(self) -> None:
        """Load the networks for images now, not with the first image."""
        ...

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Features (N, D) float32, concatenated, from each input's prepared images (N, 3, S, S) float32."""
        ...

    def weights_digest(self, index: int) -> str:
        """Digest of the weights of an input's network; empty if the file does not hold them."""
        ...

    def backbone_weights(self, index: int) -> dict[str, np.ndarray]:
        """The tensors of an input's network, by their names in it."""
        ...

    def start(self, features: np.ndarray) -> Any:
        """The state before the first word, for features (N, D) float32."""
        ...

    def step(self, tokens: Any, state: Any) -> tuple[Any, Any]: ...
    def select(self, state: Any, rows: Any) -> Any: ...


def choose_runtime(header: Header, device: str, wanted: str = "auto") -> str:
    """``onnx`` or ``torch`` for a model on ``device``.

    ``auto`` is ONNX Runtime if the file has graphs, the device is the CPU and ONNX Runtime is installed. Raises
    ``UsageError`` for a runtime that is not in ``RUNTIMES`` or cannot run the model.
    """
    if wanted not in RUNTIMES:
        raise UsageError(f"runtime {wanted!r}: choose one of {', '.join(RUNTIMES)}")
    if wanted == "onnx" and not header.has_graphs:
        raise UsageError(f"{header.path} holds no graphs for ONNX Runtime; captioner export adds them")
    if wanted == "onnx" and device != "cpu":
        raise UsageError(f"ONNX Runtime computes on the cpu only, not on {device}")
    if wanted == "auto":
        fits = header.has_graphs and device == "cpu" and importlib.util.find_spec("onnxruntime") is not None
        return "onnx" if fits else "torch"
    return wanted


def load_runtime(header: Header, name: str, device: str, wanted: str = "auto") -> Runtime:
    """The runtime of a checkpoint file; errors call the model ``name``."""
    if choose_runtime(header, device, wanted) == "onnx":
        from captioner.predictors.onnx_runtime import OnnxRuntime

        return OnnxRuntime(header)
    require("torch", "torch")
    from captioner.checkpoint import load_checkpoint
    from captioner.devices import find_device
    from captioner.predictors.torch_runtime import TorchRuntime

    return TorchRuntime(load_checkpoint(header.path), name, find_device(device))
