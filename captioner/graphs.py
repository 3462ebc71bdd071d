"""ONNX graphs: written from torch modules, and run by ONNX Runtime on a CPU without torch."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from captioner.errors import GraphError
from captioner.optional import require

if TYPE_CHECKING:  # graphs are run without torch
    from torch import nn

ROWS = 2
"""Rows of example inputs; with one row torch would export a constant."""
IMAGES_AT_ONCE = 2
"""Images that go through a network together; for more, memory is freed and allocated again in every layer."""


class Graph(NamedTuple):
    """A graph and the weights that it refers to by name."""

    model: bytes
    """The ONNX model, serialized."""
    weights: Mapping[str, np.ndarray]
    """Float32 arrays by name; empty if the model itself holds them."""


def write_graph(module: nn.Module, inputs: tuple[Any, ...], *, optimize: bool) -> Any:
    """A module as an ONNX model (protobuf); ``inputs`` are examples, whose first axes may vary later.

    torch's own optimization (``optimize``) merges batch norms into weights that are then not the module's. Without it,
    ONNX Runtime merges norms and activations into the convolutions when it opens the graph.
    Raises ``GraphError`` for a module that cannot be written, ``MissingDependency`` without onnx and onnxscript.
    """
    import torch

    require("onnx", "export")
    require("onnxscript", "export")
    rows = torch.export.Dim("rows")
    shapes = tuple([{0: rows}] * len(value) if isinstance(value, list) else {0: rows} for value in inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the exporter's own code
            program = torch.onnx.export(
                module.eval(),
                inputs,
                dynamo=True,
                dynamic_shapes=shapes,
                optimize=optimize,
                verbose=False,
            )
    except Exception as error:  # the exporter may raise any error
        raise GraphError(f"cannot be written as an ONNX graph: {_reason(error)}") from error
    assert program is not None
    if not optimize:
        _fold_constants(program.model)
    return program.model_proto


def open_graph(graph: Graph) -> Any:
    """An ONNX Runtime session of ``graph``; raises ``GraphError`` if it cannot run."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    # Without a number, ONNX Runtime binds threads to cores, and warns on stderr if it may use only some of them.
    options.intra_op_num_threads = _cores()
    # To save memory: the arena allocates twice what is needed; packed weights are a second copy, for 1 % less time.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 4  # problems become an error below
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other threads open images meanwhile
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), values)
    try:
        return ort.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds of errors of its own
        raise GraphError(f"does not run: {_reason(error)}") from error
    finally:
        _give_back_memory()


def run_graph(session: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a session for ``inputs``, both in the order of the graph's."""
    names = [item.name for item in session.get_inputs()]
    given = {name: np.ascontiguousarray(value) for name, value in zip(names, inputs, strict=True)}
    found: list[np.ndarray] = session.run(None, given)
    return found


def encode(session: Any, images: np.ndarray) -> np.ndarray:
    """Features (N, D) of images (N, 3, S, S), by a session that encodes a few at a time."""
    parts = (images[first : first + IMAGES_AT_ONCE] for first in range(0, len(images), IMAGES_AT_ONCE))
    return np.concatenate([run_graph(session, [part])[0] for part in parts])


def _fold_constants(model: Any) -> None:
    """Compute values that depend only on constants, and remove the zero biases added to convolutions without bias.

    Both would keep ONNX Runtime from merging a convolution with the layers after it, which more than doubles its speed.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    fold_constants(model)
    for node in model.graph:
        if node.op_type == "Conv" and len(node.inputs) == 3:
            bias = node.inputs[2].const_value
            if bias is not None and not bias.numpy().any():
                node.replace_input_with(2, None)
    RemoveUnusedNodesPass()(model)


def _give_back_memory() -> None:
    """Return freed memory to the system, which glibc keeps otherwise: opening a graph copies the weights thrice."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _cores() -> int:
    """Number of cores that this process may use, or ``OMP_NUM_THREADS`` if it is set, as in torch."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen):
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
