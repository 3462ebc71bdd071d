"""Summing gradients over two processes, compared with ``DistributedDataParallel``, over gloo on one machine.

Both: forward, backward and the sum of the gradients for four LSTM layers and an output layer of the sizes of
flickr8k-4f, on the same rows in float32, one thread for each process. Ours: ``World.sum_gradients`` after backward.
Baseline: the same network inside ``DistributedDataParallel``, which sends buckets of gradients while backward runs.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.measure import Measurement, compare, rate
from captioner.train.distributed import World

WORDS = 12  # in a caption


class Network(nn.Module):
    """The recurrent layers and the output layer."""

    def __init__(self, hidden: int, words: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(hidden, hidden, num_layers=4)
        self.lm_head = nn.Linear(hidden, words)

    def forward(self, inputs: Tensor) -> Tensor:
        """A scalar to which every parameter contributes, given ``inputs`` (T, B, H)."""
        logits: Tensor = self.lm_head(self.lstm(inputs)[0])
        return logits.square().mean()


def measure(
    steps: int = 4, rounds: int = 7, hidden: int = 384, words: int = 2600, batch_size: int = 128
) -> list[Measurement]:
    """Steps per second with our sum over those with ``DistributedDataParallel``."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_one_of_two, (folder, steps, rounds, hidden, words, batch_size), nprocs=2)
        return [Measurement(**json.loads((Path(folder) / "measurement.json").read_text(encoding="utf-8")))]


def _one_of_two(rank: int, folder: str, steps: int, rounds: int, hidden: int, words: int, batch_size: int) -> None:
    """Main function of each process; the first one writes ``measurement.json``."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = Network(hidden, words)
    wrapped = DistributedDataParallel(Network(hidden, words))
    inputs = torch.randn(WORDS, batch_size // 2, hidden)
    world = World(rank, 2, rank)

    def ours() -> None:
        for _ in range(steps):
            network.zero_grad(set_to_none=True)
            network(inputs).backward()
            world.sum_gradients(network.parameters())

    def theirs() -> None:
        for _ in range(steps):
            wrapped.zero_grad(set_to_none=True)
            wrapped(inputs).backward()

    name = "sum of gradients over DistributedDataParallel, 2 processes"
    found = compare(name, "steps/s", rate(steps, ours), rate(steps, theirs), rounds=rounds)
    if rank == 0:
        (Path(folder) / "measurement.json").write_text(json.dumps(dataclasses.asdict(found)), encoding="utf-8")
    distributed.destroy_process_group()
