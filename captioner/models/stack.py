"""A stack of recurrent layers with a given wiring: fused over whole sequences, or one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.config import choose
from captioner.models.wirings import Wiring

State = tuple[Tensor, ...]
"""Hidden state, several tensors (N, H): one per layer, or h and c of each layer for LSTMs; rows are sequences."""


@dataclass(frozen=True)
class Cell:
    """A kind of recurrent cell: the same computation over a sequence, for one step, and in parts."""

    module: Callable[[int, int], nn.RNNBase]
    """Makes a fused layer, given input size and units."""
    step: Callable[..., Any]
    """From input, state and the layer's four weights to the next state; several state tensors are passed as a tuple."""
    gate: Callable[[Tensor, Tensor, State], State]
    """From the products of the input and of the state with their weights, (N, gates * H) each, and a layer's state, to
    the next state. The second product may be overwritten."""
    gates: int = 1
    """Number of blocks of rows in a weight matrix."""
    states: int = 1
    """Number of state tensors of a layer; the first is its output."""


def _lstm(inputs: Tensor, recurrent: Tensor, state: State) -> State:
    i, f, g, o = recurrent.add_(inputs).chunk(4, -1)
    cell = (f.sigmoid_() * state[1]).addcmul_(i.sigmoid_(), g.tanh_())
    return o.sigmoid_() * cell.tanh(), cell


def _gru(inputs: Tensor, recurrent: Tensor, state: State) -> State:
    (reset, update, new), (from_reset, from_update, from_new) = inputs.chunk(3, -1), recurrent.chunk(3, -1)
    candidate = torch.addcmul(new, (reset + from_reset).sigmoid_(), from_new).tanh_()
    return (torch.lerp(candidate, state[0], (update + from_update).sigmoid_()),)


def _rnn(inputs: Tensor, recurrent: Tensor, state: State) -> State:
    return (recurrent.add_(inputs).tanh_(),)


CELLS = {
    "lstm": Cell(nn.LSTM, torch.lstm_cell, _lstm, gates=4, states=2),
    "gru": Cell(nn.GRU, torch.gru_cell, _gru, gates=3),
    "rnn": Cell(nn.RNN, torch.rnn_tanh_cell, _rnn),
}


class RecurrentStack(nn.Module):
    """Layers of ``hidden`` units over words of size ``word`` and images of size ``image``.

    ``dropout`` is the probability of dropping a unit between layers. With ``residual``, a layer that reads only the one
    below adds its input to its output. Raises ``ConfigError`` if ``cell`` is not in the table.
    """

    def __init__(
        self,
        wiring: Wiring,
        cell: str,
        word: int,
        image: int,
        hidden: int,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        choose("model.cell", cell, CELLS)
        sizes = {"word": word, "image": image, "below": hidden}
        self.wiring = wiring
        self.hidden = hidden
        self.kind = CELLS[cell]
        self.dropout = dropout
        self.skips = tuple(residual and inputs == ("below",) for inputs in wiring)
        self.layers = nn.ModuleList(self.kind.module(sum(sizes[name] for name in inputs), hidden) for inputs in wiring)

    def forward(self, words: Tensor, image: Tensor, state: State = ()) -> Tensor:
        """The top layer's output (T, B, H) for words (T, B, E), image (B, I) and state (zeros by default)."""
        # Concatenating at every step is fast: the input products of all steps are one matrix product, while
        # adding a per-sequence term to the gates instead would leave the fused kernel.
        sources = {"word": words, "image": image.expand(words.shape[0], -1, -1)}  # (B, I) -> (T, B, I)
        for index, (layer, inputs, skip) in enumerate(zip(self.layers, self.wiring, self.skips, strict=True)):
            below = sources.get("below")
            if below is not None:  # words and images already have dropout
                sources["below"] = drop(below, self.dropout, self.training)
            output, _ = layer(_join([sources[name] for name in inputs]), self._before(index, state))
            sources["below"] = output + below if skip and below is not None else output
        return sources["below"]

    def start(self, count: int, like: Tensor) -> State:
        """Zero states for ``count`` sequences, with the type and device of ``like``."""
        return tuple(like.new_zeros(count, self.hidden) for _ in range(self.kind.states * len(self.layers)))

    def step(self, word: Tensor, image: Tensor, state: State) -> tuple[Tensor, State]:
        """The top layer's output (N, H) and the next state for one word (N, E), image (N, I) and state; no dropout."""
        sources = {"word": word, "image": image}
        following: list[Tensor] = []
        for index, (inputs, skip) in enumerate(zip(self.wiring, self.skips, strict=True)):
            below = sources.get("below")
            before = self._of_layer(index, state)
            after = self._step_layer(index, _join([sources[name] for name in inputs]), before)
            following.extend(after)
            sources["below"] = after[0] + below if skip and below is not None else after[0]
        return sources["below"], tuple(following)

    def _of_layer(self, index: int, state: State) -> State:
        """One layer's part of a state."""
        return state[self.kind.states * index : self.kind.states * (index + 1)]

    def _before(self, index: int, state: State) -> Any:
        """One layer's part of a state in the form of its fused module; None stands for zeros."""
        parts = [part.unsqueeze(0) for part in self._of_layer(index, state)]  # (B, H) -> (1, B, H)
        return None if not parts else tuple(parts) if len(parts) > 1 else parts[0]

    def _step_layer(self, index: int, x: Tensor, before: State) -> State:
        """The next state of one layer, from its input (N, ...) and state; the first tensor is the output."""
        layer = self.layers[index]
        weights: tuple[Tensor, ...] = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)  # type: ignore[assignment]
        if self.kind.states == 1:
            return (self.kind.step(x, before[0], *weights),)
        return tuple(self.kind.step(x, before, *weights))


def drop(x: Tensor, probability: float, training: bool) -> Tensor:
    """Dropout of single units like ``functional.dropout``, several times faster on a CPU.

    On a CPU, torch draws each unit of the mask separately, which takes a tenth of a training step of this model; here
    one 64-bit draw gives four 16-bit numbers, so probabilities are rounded to 1/65536.
    """
    if not training or probability == 0:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, probability)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    threshold = round(probability * 65536) - 32768
    mask = (draws[: x.numel()].view(x.shape) >= threshold).to(x.dtype)
    return x * mask.mul_(1 / (1 - probability))


def _join(parts: list[Tensor]) -> Tensor:
    """Concatenate parts (..., D1), (..., D2), ... to (..., D1 + D2 + ...)."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
