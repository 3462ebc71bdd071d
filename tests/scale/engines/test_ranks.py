from __future__ import annotations

from pathlib import Path

import pytest

from captioner.errors import UsageError
from captioner.scale.engines.ranks import run_slurm, run_torchrun, slurm_rank, torchrun_rank
from captioner.scale.job import Outcome, start_run
from tests.scale.toy import make_job, records, shards_of, write_tars


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({"ARRAY_TASK_ID": "7", "ARRAY_TASK_MIN": "3", "ARRAY_TASK_STEP": "2", "ARRAY_TASK_COUNT": "5"}, (2, 5)),
        ({"ARRAY_TASK_ID": "1", "ARRAY_TASK_MIN": "1", "ARRAY_TASK_COUNT": "4", "PROCID": "0", "NTASKS": "8"}, (0, 4)),
        ({"PROCID": "3", "STEP_NUM_TASKS": "8"}, (3, 8)),
        ({"ARRAY_TASK_ID": "1", "ARRAY_TASK_COUNT": "2", "PROCID": "3", "STEP_NUM_TASKS": "8"}, (11, 16)),
    ],
)
def test_the_rank_in_slurm(variables: dict[str, str], rank: tuple[int, int]) -> None:
    """Would catch shards that no task takes: arrays that begin at 1, steps, and batch scripts of several tasks."""
    assert slurm_rank({f"SLURM_{name}": value for name, value in variables.items()}) == rank


def test_a_wrong_environment_is_refused() -> None:
    """Would catch a process that takes all shards, or none, because nobody started it as one of several."""
    for variables in ({}, {"RANK": "0"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"}):
        with pytest.raises(UsageError):
            torchrun_rank(variables)
    for variables in ({}, {"SLURM_PROCID": "0"}, {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "3"}):
        with pytest.raises(UsageError):
            slurm_rank(variables)


def test_each_shard_has_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a shard that two ranks do, or none, also after a restart with some done."""
    shards = shards_of(write_tars(tmp_path / "in", 7))
    job = make_job(tmp_path / "out")
    start_run(job, shards)
    done: list[Outcome] = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        run_torchrun(job, start_run(job, shards), 1, done.append)
    assert sorted(one.shard.name for one in done) == [shard.name for shard in shards]
    with pytest.raises(UsageError, match="--workers"):
        run_torchrun(job, shards, 2, done.append)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "1")
    other = make_job(tmp_path / "other")
    run_slurm(other, shards, 1, done.append)
    assert records(tmp_path / "other") == records(tmp_path / "out")
