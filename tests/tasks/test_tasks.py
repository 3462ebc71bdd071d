"""Every task keeps the contract, and a new one needs no change to trainer, checkpoints or configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captioner.checkpoint import load_checkpoint
from captioner.errors import ConfigError
from captioner.experiment import parse_experiment
from captioner.predictors import PREDICTORS
from captioner.registry import resolve
from captioner.tasks.base import TASKS, find_task
from captioner.train.runlog import read_log
from captioner.train.trainer import train
from tests import toy_task
from tests.conftest import CHECKOUT


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "toy", "tests.toy_task:TASK")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_keeps_the_contract(name: str) -> None:
    task = find_task(name)
    assert task.name == name
    assert task.metrics and set(task.metrics.values()) <= {"max", "min"}
    task.config()  # every section has defaults
    if name in PREDICTORS:
        resolve(PREDICTORS, name, "predictor")


def test_a_new_task_trains_saves_and_resumes(toy: None, tmp_path: Path) -> None:
    """Would catch a trainer or a checkpoint that knows sentences only."""
    values = {
        "task": "toy",
        "output": str(tmp_path / "run"),
        "points": 96,
        "train": {"epochs": 6, "batch_size": 16, "lr": 0.1, "ema": 0.5, "device": "cpu", "log_every": 1},
    }
    result = train(parse_experiment(values, "toy"), progress=False)
    assert result.metric == "accuracy" and result.score > 0.95
    checkpoint = load_checkpoint(result.checkpoint)
    assert (checkpoint.task, checkpoint.config) == ("toy", toy_task.ToyConfig(96))
    assert checkpoint.outputs.to_list() == ["left", "right"] and checkpoint.inputs[0].key == "points"
    assert checkpoint.model(torch.tensor([[-2.0, 0.0], [2.0, 0.0]])).argmax(1).tolist() == [0, 1]
    assert (tmp_path / "run/curve.png").exists()

    longer = {**values, "train": {**values["train"], "epochs": 8, "schedule": "cosine"}}
    assert train(parse_experiment(longer, "toy"), progress=False).epochs == 8
    log = read_log(tmp_path / "run/log.jsonl")
    assert [r["epoch"] for r in log if r["kind"] == "epoch"] == list(range(1, 9))
    with pytest.raises(ConfigError, match="points was 96, now 5"):
        train(parse_experiment({**values, "points": 5}, "toy"), progress=False)
    with pytest.raises(ConfigError, match=r"train\.metric: 'cider' is not one of accuracy"):
        parse_experiment({**values, "train": {"metric": "cider"}}, "toy")


def test_the_toy_task_is_short() -> None:
    """A task of its own fits in 60 lines of code; would catch a contract that grows."""
    lines = (CHECKOUT / "tests/toy_task.py").read_text().split('"""', 2)[2].splitlines()
    assert sum(bool(line.strip()) for line in lines) < 60
