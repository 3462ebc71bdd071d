"""Read a feature from a network: its output, the result of a method, or the output of an inner layer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from captioner.errors import BackboneError, shorten

Read = Callable[[nn.Module, Tensor], Tensor]
METHOD = re.compile(r"([A-Za-z_]\w*)\(\)(?:\[(\d+)\])?")


class _Reached(Exception):
    """Carries a layer's output out of a forward pass: later layers are not run, and threads share nothing."""

    def __init__(self, output: Any) -> None:
        self.output = output


def reader(network: nn.Module, output: str, where: str) -> Read:
    """A function (network, images) -> features (N, D) for ``output``.

    ``output`` is empty (the network's output), ``method()``, ``method()[i]``, or a dotted layer name. Maps
    (N, C, H, W) are averaged over space, sequences (N, T, C) over tokens. Raises ``BackboneError`` for unknown names.
    """
    if not output:
        return _Method("forward", None, where)
    method = METHOD.fullmatch(output)
    if method:
        if not callable(getattr(network, method[1], None)):
            raise BackboneError(f"{where}: the network has no method {method[1]}()")
        return _Method(method[1], None if method[2] is None else int(method[2]), where)
    layers = dict(network.named_modules())
    if output not in layers:
        some = ", ".join(name for name, _ in network.named_children())
        raise BackboneError(f"{where}: no layer {shorten(output)}; the outermost ones are {some}")
    layers[output].register_forward_hook(_reach)
    return _Layer(where)


class _Method:
    def __init__(self, name: str, index: int | None, where: str) -> None:
        self.name, self.index, self.where = name, index, where

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        # call the module for forward(), so that its hooks run
        result = network(images) if self.name == "forward" else getattr(network, self.name)(images)
        if self.index is not None:
            if not isinstance(result, tuple | list) or self.index >= len(result):
                raise BackboneError(f"{self.where}: {self.name}() returns nothing at [{self.index}]")
            result = result[self.index]
        return pool(result, self.where)


class _Layer:
    def __init__(self, where: str) -> None:
        self.where = where

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        try:
            network(images)
        except _Reached as reached:
            return pool(reached.output, self.where)
        raise BackboneError(f"{self.where}: the layer was not used; choose one that every image passes through")


def _reach(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _Reached(output)


def pool(output: Any, where: str) -> Tensor:
    """Vectors (N, D) from vectors, maps (N, D, H, W) or sequences (N, T, D)."""
    if not isinstance(output, Tensor):
        raise BackboneError(f"{where}: the output is a {type(output).__name__}, not one tensor; select one with [i]")
    if output.ndim == 4:
        return output.float().mean((2, 3))  # a mean in bfloat16 would be rounded
    if output.ndim == 3:
        return output.float().mean(1)
    if output.ndim != 2:
        raise BackboneError(f"{where}: the output has shape {tuple(output.shape)}; expected 2, 3 or 4 dimensions")
    return output
