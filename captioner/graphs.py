"""ONNX graphs: written from torch modules, and run by ONNX Runtime on a processor without torch."""

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

IMAGES_AT_ONCE = 2
"""Images that go through a network together; memory for more is given back and asked for again in every layer."""


class Graph(NamedTuple):
    """A graph and the weights that it refers to by name."""

    model: bytes
    """The ONNX model, serialized."""
    weights: Mapping[str, np.ndarray]
    """Float32 arrays by name; empty where the model itself holds them."""


def write_graph(module: nn.Module, inputs: tuple[Any, ...], *, optimize: bool) -> Any:
    """A module as an ONNX model (protobuf); ``inputs`` are examples, whose first axes may vary later.

    torch's own optimization (``optimize``) would merge batch norms into other weights than the module's. Without it,
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
            warnings.simplefilter("ignore")  # of the exporter's own code
            program = torch.onnx.export(
                module.eval(),
                inputs,
                dynamo=True,
                dynamic_shapes=shapes,
                optimize=optimize,
                verbose=False,
            )
    except Exception as error:  # the exporter raises what it likes
        raise GraphError(f"cannot be written as an ONNX graph: {_reason(error)}") from error
    assert program is not None
    if not optimize:
        _fold_constants(program.model)
    return program.model_proto


def open_graph(graph: Graph) -> Any:
    """An ONNX Runtime session of ``graph``; raises ``GraphError`` where it cannot run."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    # Without a number ONNX Runtime binds threads to cores, and complains on stderr where only some may be used.
    options.intra_op_num_threads = _cores()
    # Memory: the arena asks for twice what is needed, packed weights are a second copy, and save 1 % of the time.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 4  # what is wrong becomes an error below
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other threads open images meanwhile
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), values)
    try:
        return ort.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has errors of its own for everything
        raise GraphError(f"does not run: {_reason(error)}") from error
    finally:
        _give_back_memory()


def run_graph(session: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a session for ``inputs``, in the order of the graph's own."""
    names = [item.name for item in session.get_inputs()]
    given = {name: np.ascontiguousarray(value) for name, value in zip(names, inputs, strict=True)}
    found: list[np.ndarray] = session.run(None, given)
    return found


def encode(session: Any, images: np.ndarray) -> np.ndarray:
    """Images (N, 3, S, S) through a session that makes features (N, D) of them, a few at a time."""
    parts = (images[first : first + IMAGES_AT_ONCE] for first in range(0, len(images), IMAGES_AT_ONCE))
    return np.concatenate([run_graph(session, [part])[0] for part in parts])


def _fold_constants(model: Any) -> None:
    """Replace what depends on constants alone, then the biases of zeros that convolutions without bias were given.

    Both would keep ONNX Runtime from merging a convolution with what follows it, which more than doubles its speed.
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
    """Return freed memory to the system, as only glibc needs to be told: opening a graph copies the weights thrice."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _cores() -> int:
    """Cores that this process may use; ``OMP_NUM_THREADS``, if set, says how many, as it does for torch."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen):
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
