"""Weight files: read without executing code, loaded strictly, and identified by a digest."""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from captioner.errors import BackboneError, MissingWeights
from captioner.features.spec import COUNTERS, digest_arrays
from captioner.files import not_finite

State = Mapping[str, Tensor]


def read_weights(path: Path) -> State:
    """Tensors of a safetensors or PyTorch file, by name; pickled code is never run.

    Raises ``MissingWeights`` if there is no file and ``BackboneError`` for a file with other contents.
    """
    if not os.path.isfile(path):
        raise MissingWeights(f"no weight file at {path}; put it there or name another one")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own message advises running the file's code
        raise BackboneError(f"{path}: not a readable weight file: neither safetensors nor plain tensors") from error
    except Exception as error:  # zip and safetensors each raise their own, some without a text
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BackboneError(f"{path}: not a readable weight file: {reason}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BackboneError(f"{path}: expected a dictionary of tensors (a state dict)")
    return state


def fit_weights(network: nn.Module, state: State, where: str, spare: Collection[str] = ()) -> None:
    """Copy ``state`` into ``network``; each name must occur exactly once.

    Only names in ``spare`` may be left over, and only counters of batch norms may be missing. Raises ``BackboneError``,
    which names the first tensor that does not fit.
    """
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in state and not name.endswith(COUNTERS):
            raise BackboneError(f"{where}: the weights lack {name}; is this the right architecture?")
        if name in state and state[name].shape != tensor.shape:
            sizes = f"{tuple(state[name].shape)}, but the architecture needs {tuple(tensor.shape)}"
            raise BackboneError(f"{where}: {name} is {sizes}")
        if name in state and state[name].is_floating_point() != tensor.is_floating_point():
            raise BackboneError(f"{where}: {name} is {state[name].dtype}, but the architecture needs {tensor.dtype}")
    extra = [name for name in state if name not in wanted and name not in spare]
    if extra:
        raise BackboneError(f"{where}: the architecture has no place for {extra[0]} ({len(extra)} such tensors)")
    if bad := not_finite({name: state[name] for name in wanted if name in state}):
        raise BackboneError(f"{where}: {bad} holds values that are not finite; download the weight file again")
    network.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)


def digest_weights(network: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all weights and statistics, whatever file they come from."""
    return digest_arrays({name: tensor.detach().float().cpu().numpy() for name, tensor in network.state_dict().items()})
