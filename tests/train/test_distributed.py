"""Two real processes over gloo against one: equal gradients, equal runs."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import multiprocessing

from captioner.experiment import Experiment
from captioner.train.distributed import World, world
from captioner.train.trainer import Trainer, train
from tests.toy import experiment, make_data

SETTINGS = {
    "train__batch_size": 5,  # the second process gets less of each batch; 47 captions leave it none of the last
    "train__optimizer": "sgd",
    "train__schedule": "constant",
    "train__lr": 0.1,
    "train__clip": 0.5,
    "train__epochs": 1,
    "loss__label_smoothing": 0.1,
}


def gradients(settings: Experiment, processes: World) -> dict[str, torch.Tensor]:
    """Of the first step, before clipping changes them."""
    run = Trainer(settings, processes, torch.device("cpu"), False, False)
    (step, *_) = run.data.batches(0, 0, processes.rank, processes.size)
    run.optimize(step)
    return {name: p.grad for name, p in run.learner.named_parameters() if p.grad is not None}


def one_of_two(rank: int, ports: tuple[int, int], unclipped: Experiment, settings: Experiment, found: str) -> None:
    """What each spawned process does: the gradients of one step, then a whole run."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(ports[0])
    with world() as processes:
        grads = gradients(unclipped, processes)
        if processes.is_main:
            save_file(grads, found)
    os.environ["MASTER_PORT"] = str(ports[1])
    train(settings, progress=False)


@pytest.fixture
def ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def test_two_processes_equal_one(tmp_path: Path, ports: tuple[int, int]) -> None:
    """Would catch a mean over processes that hold different numbers of tokens, and rows seen twice or never."""
    data = make_data(tmp_path / "toy")
    lines = (data / "captions.jsonl").read_text().replace(', "there is a red square"', "", 1)
    (data / "captions.jsonl").write_text(lines)
    unclipped = experiment(data, tmp_path / "gradients", **SETTINGS | {"train__clip": 0})
    found = tmp_path / "gradients.safetensors"
    two = experiment(data, tmp_path / "two", **SETTINGS)
    started = multiprocessing.spawn(one_of_two, (ports, unclipped, two, str(found)), nprocs=2, join=False)
    deadline = time.monotonic() + 300
    try:
        while not started.join(timeout=1):
            assert time.monotonic() < deadline, "the two processes wait for each other, or for nothing"
    finally:
        for process in started.processes:
            process.kill()

    wanted = gradients(unclipped, World())
    ours = load_file(found)
    assert ours.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-6, atol=1e-6, msg=name)

    train(experiment(data, tmp_path / "one", **SETTINGS), progress=False)
    left, right = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for name, weights in left.items():
        torch.testing.assert_close(right[name], weights, rtol=1e-4, atol=1e-5, msg=name)
