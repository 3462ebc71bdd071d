"""Export an LRCN model for ONNX Runtime, which captions without torch.

The exported file is an ordinary checkpoint with a few more byte tensors: ``onnx.backbone.0`` and so on (prepared images
to features), ``onnx.start`` (features to the state before the first word) and ``onnx.step`` (a word and a state to the
log probabilities of the next word). These graphs hold no weights but refer to the checkpoint's own tensors, which
``onnx.step.weights`` and so on list, one name per line. So the file grows only by some ten kilobytes, and can be used
wherever checkpoints are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone
from captioner.backbones.onnx import Encoder
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.errors import CheckpointError, GraphError
from captioner.files import atomic_path, read_tensors
from captioner.graphs import ROWS, write_graph
from captioner.model_file import FORMAT, GRAPH, WEIGHTS, checksum
from captioner.models.lrcn import LRCN, State


class _Start(nn.Module):
    """Features (N, D) to the image input (N, I) and the recurrent state, (N, H) each."""

    def __init__(self, model: LRCN) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        state = self.model.start(features)
        return (state.image, *state.stack)


class _Step(nn.Module):
    """Words (N,), image input and recurrent state to log probabilities (N, V) and the next recurrent state."""

    def __init__(self, model: LRCN) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, image: Tensor, stack: list[Tensor]) -> tuple[Tensor, ...]:
        log_probs, state = self.model.predict(tokens, State(image, tuple(stack)))
        return (log_probs, *state.stack)


def export_onnx(source: str | Path, output: str | Path) -> None:
    """Write the checkpoint ``source`` and its backbones' weights, with graphs for ONNX Runtime, atomically.

    Raises ``CheckpointError`` for a model that reads no images or cannot be written as a graph, and
    ``MissingDependency`` without the packages onnx and onnxscript.
    """
    checkpoint = load_checkpoint(source)
    tensors, header = read_tensors(source)
    backbones = _backbones(checkpoint)
    for index, backbone in enumerate(backbones):
        if checkpoint.backbone_states[index] is None:
            tensors |= {f"backbone.{index}.{name}": value for name, value in backbone.network.state_dict().items()}
    weights = {f"model.{name}": value for name, value in checkpoint.model.state_dict().items()}
    for index, backbone in enumerate(backbones):
        weights |= {f"backbone.{index}.{name}": value for name, value in backbone.network.state_dict().items()}
    graphs = make_graphs(checkpoint.model, backbones, weights, str(source))
    kept = {name: value for name, value in tensors.items() if not name.startswith(GRAPH)}
    stored = {f"{GRAPH}{name}": torch.frombuffer(bytearray(data), dtype=torch.uint8) for name, data in graphs.items()}
    contents = json.loads(header[FORMAT])
    contents["checksum"] = checksum({name: tensor.numpy() for name, tensor in kept.items()})
    header[FORMAT] = json.dumps(contents, ensure_ascii=False)
    with atomic_path(output) as temporary:
        save_file({**kept, **stored}, temporary, header)


def make_graphs(model: LRCN, backbones: Sequence[Backbone], weights: dict[str, Tensor], where: str) -> dict[str, bytes]:
    """Graphs by name, ``start``, ``step`` and ``backbone.INDEX``, and the lists of their weights, ``start.weights``...

    Tensors in ``weights`` stay outside of the graphs.
    """
    model = model.eval()
    features = torch.rand(ROWS, model.feature_size)
    image, *stack = _Start(model)(features)
    tokens = torch.ones(ROWS, dtype=torch.int64)
    modules: dict[str, tuple[nn.Module, tuple[Any, ...], bool]] = {
        "start": (_Start(model), (features,), True),
        "step": (_Step(model), (tokens, image, stack), True),
    }
    for index, backbone in enumerate(backbones):
        images = torch.rand(ROWS, 3, backbone.spec.size, backbone.spec.size)
        modules[f"backbone.{index}"] = (Encoder(backbone, index), (images,), False)
    made: dict[str, bytes] = {}
    for name, parts in modules.items():
        module, inputs, optimize = parts
        try:
            program = write_graph(module, inputs, optimize=optimize)
        except GraphError as error:
            raise CheckpointError(f"{where}: {name} {error}") from error
        outside = _remove_weights(program, weights)
        made |= {name: program.SerializeToString(), f"{name}{WEIGHTS}": "\n".join(outside).encode()}
    return made


def _backbones(checkpoint: Checkpoint) -> list[Backbone]:
    """The networks that compute the model's features, with the checkpoint's weights if it has them."""
    if not checkpoint.inputs or not isinstance(checkpoint.model, LRCN) or checkpoint.task != "captioning":
        raise CheckpointError(f"{checkpoint.path}: does not caption images; only models that do can be exported")
    states = zip(checkpoint.inputs, checkpoint.backbone_states, strict=True)
    return [load_backbone(spec.key, state=state, trusted=False) for spec, state in states]


def _remove_weights(model: Any, weights: dict[str, Tensor]) -> list[str]:
    """Make the tensors of an ONNX model that equal one of ``weights`` by name and value external; returns their names.

    The nodes' records of their places in our source code are removed too.
    """
    from onnx import TensorProto, numpy_helper

    outside: list[str] = []
    offset = 0
    for tensor in model.graph.initializer:
        known = weights.get(tensor.name)
        if known is None or not np.array_equal(numpy_helper.to_array(tensor), known.numpy()):
            continue
        for field in ("raw_data", "float_data", "int64_data"):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "checkpoint"), ("offset", offset), ("length", known.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        offset += known.nbytes
        outside.append(tensor.name)
    for part in (model, model.graph, *model.graph.node):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    return outside
