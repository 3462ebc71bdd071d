"""Two real processes over gloo against one: equal gradients, equal runs."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

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


def resumed_by_two(rank: int, port: int, settings: Experiment) -> None:
    """What each spawned process does that goes on with the run of one."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(port)
    train(settings, progress=False)


def wait_for(started: multiprocessing.ProcessContext) -> None:
    deadline = time.monotonic() + 300
    try:
        while not started.join(timeout=1):
            assert time.monotonic() < deadline, "the two processes wait for each other, or for nothing"
    finally:
        for process in started.processes:
            process.kill()


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
    wait_for(started)
    wanted = gradients(unclipped, World())
    ours = load_file(found)
    assert ours.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-6, atol=1e-6, msg=name)

    train(experiment(data, tmp_path / "one", **SETTINGS), progress=False)
    left, right = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for name, weights in left.items():
        torch.testing.assert_close(right[name], weights, rtol=1e-4, atol=1e-5, msg=name)


def test_features_in_shards_and_a_run_that_goes_on_with_more_processes(
    tmp_path: Path, ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch batches that depend on the number of processes, and a resumed run that sees some again or never."""
    pytest.importorskip("pyarrow")
    from captioner.scale import features

    monkeypatch.setattr(features, "SHARD_SIZE", 5)
    data = make_data(tmp_path / "toy")
    features.export_features(data / "features.h5", str(data / "shards"))
    shards = {"data__features": [str(data / "shards")], "data__shuffle_buffer": 12}
    settings = SETTINGS | shards | {"train__epochs": 2, "train__log_every": 1, "train__save_minutes": 0}
    run = Trainer(experiment(data, tmp_path / "two", **settings), World(), torch.device("cpu"), False, False)
    first = list(run.data.batches(0))
    plain = Trainer(experiment(data, tmp_path / "plain", **SETTINGS), World(), torch.device("cpu"), False, False)
    table = plain.data.images.features["input"].float()
    assert all(torch.equal(batch.images["input"], table[batch.rows]) for batch in first)
    rows = torch.cat([batch.rows for batch in first])
    assert torch.equal(rows.sort().values, torch.cat([batch.rows for batch in plain.data.batches(0)]).sort().values)
    assert not torch.equal(rows, torch.cat([batch.rows for batch in run.data.batches(1)]))
    halves = [list(run.data.batches(1, 2, rank, 2)) for rank in range(2)]
    for whole, *parts in zip(list(run.data.batches(1))[2:], *halves, strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(part.rows, whole.rows[rank::2]) and torch.equal(part.targets, whole.targets[rank::2])

    optimize = Trainer.optimize

    def interrupted(self: Trainer, batch: Any) -> Any:
        if self.position.step == len(self.data) + 3:  # in the second epoch
            raise KeyboardInterrupt
        return optimize(self, batch)

    monkeypatch.setattr(Trainer, "optimize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    monkeypatch.undo()
    two = experiment(data, tmp_path / "two", **settings)
    wait_for(multiprocessing.spawn(resumed_by_two, (ports[0], two), nprocs=2, join=False))
    train(experiment(data, tmp_path / "one", **settings), progress=False)
    left, right = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for name, weights in left.items():
        torch.testing.assert_close(right[name], weights, rtol=1e-4, atol=1e-5, msg=name)
