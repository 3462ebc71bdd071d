"""Training one model in several processes; no other module uses ``torch.distributed``.

Started by ``torchrun --nproc-per-node N -m captioner train ...``. All processes go through the same global batches.
Each takes the rows ``rank::size`` of a batch and divides its loss by the *global* number of tokens, so that the sum of
the gradients over the processes is the gradient of the whole batch in one process.

``DistributedDataParallel`` is not used: it averages gradients, and needs the loss inside ``forward`` and rows in every
process. It is not faster for a network of this size: with our sum, training does 0.97 to 1.03 times as many steps per
second (``python -m benchmarks.run gradients``; two processes over gloo, one thread each).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as engine
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process's number (``rank``, from 0), the number of processes (``size``), and its number on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files, evaluates and reports."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This process's rows of a batch of ``count``."""
        return slice(self.rank, count, self.size)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes, with one message per dtype."""
        if self.size == 1:
            return
        grads: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:  # this process had no rows, or the loss does not use the parameter
                parameter.grad = torch.zeros_like(parameter)
            grads.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for tensors in grads.values():
            flat = torch.cat([t.reshape(-1) for t in tensors])
            engine.all_reduce(flat)
            pieces = torch.split(flat, [t.numel() for t in tensors])
            torch._foreach_copy_(tensors, [p.view_as(t) for p, t in zip(pieces, tensors, strict=True)])

    def sum_numbers(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sum of each of ``values`` over the processes, in double precision."""
        if self.size == 1:
            return list(values)
        summed: list[float] = self.sum(torch.tensor(values, dtype=torch.float64, device=device)).tolist()
        return summed

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over the processes, for reporting."""
        if self.size > 1:
            value = value.clone()
            engine.all_reduce(value)
        return value

    def broadcast_parameters(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite ``tensors`` with those of the main process."""
        if self.size > 1:
            for tensor in tensors:
                engine.broadcast(tensor.detach(), 0)

    def broadcast(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The main process's ``values``, in every process; all processes wait for it."""
        if self.size == 1:
            return list(values)
        message = torch.tensor(values, dtype=torch.float64, device=device)
        engine.broadcast(message, 0)
        received: list[float] = message.tolist()
        return received

    def broadcast_flag(self, flag: bool, device: torch.device) -> bool:
        """The main process's ``flag``, in every process."""
        return bool(self.broadcast([float(flag)], device)[0])


@contextmanager
def world() -> Iterator[World]:
    """Join the processes that ``torchrun`` started for the duration of the block; without torchrun, this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield World()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local)
    engine.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(engine.get_rank(), engine.get_world_size(), local)
    finally:
        engine.destroy_process_group()


def is_main_process() -> bool:
    """Whether this process reports progress; also valid outside the block of ``world``."""
    return os.environ.get("RANK", "0") == "0"
