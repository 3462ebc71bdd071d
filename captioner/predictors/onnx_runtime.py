"""The runtime of exported models: ONNX Runtime on a CPU, without torch (see ``captioner.export``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from captioner.errors import CheckpointError, GraphError
from captioner.features.spec import digest_arrays
from captioner.graphs import encode, open_graph, run_graph
from captioner.model_file import RESTORE, Header, read_graph, read_weights
from captioner.text.vocabulary import NEVER


class State(NamedTuple):
    """The state of decoding for N captions in progress."""

    image: np.ndarray
    """Image input of the recurrent layers, (N, I)."""
    stack: tuple[np.ndarray, ...]
    """Recurrent state, several tensors (N, H)."""


class OnnxRuntime:
    """A checkpoint's graphs, with the checkpoint's weights."""

    def __init__(self, header: Header) -> None:
        self.checkpoint = header
        self._weights = read_weights(header)

    def prepare(self) -> None:
        self._encoders  # noqa: B018

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([self.encode_one(index, batch) for index, batch in enumerate(images)], 1)

    def encode_one(self, index: int, images: np.ndarray) -> np.ndarray:
        """From prepared images (N, 3, S, S) float32 of one input, features (N, D) float32."""
        return encode(self._encoders[index], images)

    def weights_digest(self, index: int) -> str:
        return digest_arrays(self.backbone_weights(index))

    def backbone_weights(self, index: int) -> dict[str, np.ndarray]:
        """The tensors of an input's network, by their names in it."""
        prefix = f"backbone.{index}."
        return {name.removeprefix(prefix): self._weights[name] for name in self._weights if name.startswith(prefix)}

    def start(self, features: np.ndarray) -> State:
        image, *stack = run_graph(self._start, [features])
        return State(image, tuple(stack))

    def step(self, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        log_probs, *stack = run_graph(self._step, [tokens, state.image, *state.stack])
        log_probs[:, NEVER] = -math.inf
        return log_probs, State(state.image, tuple(stack))

    def select(self, state: State, rows: np.ndarray) -> State:
        return State(state.image[rows], tuple(part[rows] for part in state.stack))

    @cached_property
    def _encoders(self) -> list[Any]:
        return [self._session(f"backbone.{index}") for index in range(len(self.checkpoint.inputs))]

    @cached_property
    def _start(self) -> Any:
        return self._session("start")

    @cached_property
    def _step(self) -> Any:
        return self._session("step")

    def _session(self, name: str) -> Any:
        """An ONNX Runtime session of one of the file's graphs; raises ``CheckpointError`` if it cannot run."""
        try:
            return open_graph(read_graph(self.checkpoint.path, self._weights, name))
        except GraphError as error:
            raise CheckpointError(f"{self.checkpoint.path}: its graph {name} {error}; {RESTORE}") from error
