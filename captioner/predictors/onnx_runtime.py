"""The runtime of exported models: ONNX Runtime on a processor, without torch (see ``captioner.export``)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from captioner.errors import CheckpointError
from captioner.features.spec import digest_arrays
from captioner.model_file import GRAPH, RESTORE, WEIGHTS, Header, read_weights
from captioner.text.vocabulary import NEVER

AT_ONCE = 4
"""Images that go through the network together; more would only fill the processor's caches."""


class State(NamedTuple):
    """What decoding carries from step to step for N captions in progress."""

    image: np.ndarray
    """Image input of the recurrent layers, (N, I)."""
    stack: tuple[np.ndarray, ...]
    """Recurrent state, (N, H) each."""


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
        """Prepared images (N, 3, S, S) float32 of one input to its features (N, D) float32."""
        some = range(0, len(images), AT_ONCE)
        session = self._encoders[index]
        return np.concatenate([_run(session, [images[first : first + AT_ONCE]])[0] for first in some])

    def weights_digest(self, index: int) -> str:
        return digest_arrays(self.backbone_weights(index))

    def backbone_weights(self, index: int) -> dict[str, np.ndarray]:
        """The tensors of the network of an input, by their names in it."""
        prefix = f"backbone.{index}."
        return {name.removeprefix(prefix): self._weights[name] for name in self._weights if name.startswith(prefix)}

    def start(self, features: np.ndarray) -> State:
        image, *stack = _run(self._start, [features])
        return State(image, tuple(stack))

    def step(self, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        log_probs, *stack = _run(self._step, [tokens, state.image, *state.stack])
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
        """An ONNX Runtime session of one of the file's graphs; ``CheckpointError`` where it cannot run."""
        import onnxruntime as ort

        path = self.checkpoint.path
        try:
            graph = self._weights[f"{GRAPH}{name}"].tobytes()
            names = self._weights[f"{GRAPH}{name}{WEIGHTS}"].tobytes().decode().split("\n")
            arrays = [np.ascontiguousarray(self._weights[one], np.float32) for one in names]
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: its graph {name} is damaged ({error}); {RESTORE}") from error
        options = ort.SessionOptions()
        # Without a number ONNX Runtime binds threads to cores, and complains on stderr where only some may be used.
        options.intra_op_num_threads = _cores()
        # Memory: the arena asks for twice what is needed, packed weights are a second copy, and save 1 % of the time.
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.log_severity_level = 4  # what is wrong becomes an error below
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other threads open images meanwhile
        options.add_external_initializers(names, [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays])
        try:
            return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has errors of its own for everything
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{path}: its graph {name} does not run: {reason}; {RESTORE}") from error


def _cores() -> int:
    """Cores that this process may use; ``OMP_NUM_THREADS``, if set, says how many, as it does for torch."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen):
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(session: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    names = [item.name for item in session.get_inputs()]
    given = {name: np.ascontiguousarray(value) for name, value in zip(names, inputs, strict=True)}
    found: list[np.ndarray] = session.run(None, given)
    return found
