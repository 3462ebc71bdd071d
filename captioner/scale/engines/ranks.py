"""One of N processes that a scheduler starts: each takes every N-th shard, and they do not communicate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from captioner.errors import UsageError
from captioner.scale.engines.base import Queue, Report
from captioner.scale.job import Job, attempt
from captioner.scale.shards import Shard


def run_slurm(job: Job, shards: Sequence[Shard], workers: int, report: Report) -> None:
    """Process the shards of this task of a job array, of this process of a step, or of both."""
    _run(job, _share(shards, slurm_rank(os.environ)), workers, report)


def run_torchrun(job: Job, shards: Sequence[Shard], workers: int, report: Report) -> None:
    """Process the shards of this process of torchrun."""
    _run(job, _share(shards, torchrun_rank(os.environ)), workers, report)


def slurm_rank(variables: Mapping[str, str]) -> tuple[int, int]:
    """This process's number, from 0, and the number of processes; raises ``UsageError`` outside of SLURM.

    See "Job Array Support" in SLURM's manual and "OUTPUT ENVIRONMENT VARIABLES" in srun(1). ``SLURM_NTASKS`` is also
    set in batch scripts, which are one process; ``SLURM_STEP_NUM_TASKS`` is set by srun alone.
    """
    if not {"SLURM_ARRAY_TASK_ID", "SLURM_STEP_NUM_TASKS"} & variables.keys():
        raise UsageError("--engine slurm: no job array and no srun here; submit it with sbatch --array=0-99")
    array, tasks = 0, 1
    if "SLURM_ARRAY_TASK_ID" in variables:
        first, step = _number(variables, "SLURM_ARRAY_TASK_MIN", 0), _number(variables, "SLURM_ARRAY_TASK_STEP", 1)
        array = (_number(variables, "SLURM_ARRAY_TASK_ID") - first) // max(1, step)
        tasks = _number(variables, "SLURM_ARRAY_TASK_COUNT")
    size = _number(variables, "SLURM_STEP_NUM_TASKS", 1)
    return _checked(array * size + (_number(variables, "SLURM_PROCID", 0) if size > 1 else 0), tasks * size)


def torchrun_rank(variables: Mapping[str, str]) -> tuple[int, int]:
    """This process's number, from 0, and the number of processes; raises ``UsageError`` outside of torchrun."""
    if "RANK" not in variables or "WORLD_SIZE" not in variables:
        raise UsageError("--engine torchrun: RANK and WORLD_SIZE are not set; start it with torchrun")
    return _checked(_number(variables, "RANK"), _number(variables, "WORLD_SIZE"))


def _number(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = variables.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise UsageError(f"the environment variable {name} should be a number, not {text!r}")
    return int(text)


def _checked(rank: int, size: int) -> tuple[int, int]:
    if not 0 <= rank < size:
        raise UsageError(f"this process is number {rank} of {size} by its environment; give --array without gaps")
    return rank, size


def _share(shards: Sequence[Shard], rank: tuple[int, int]) -> list[Shard]:
    """The shards of this process, by their own numbers: they stay the same after a restart, when fewer are left."""
    return [shard for shard in shards if int(shard.name) % rank[1] == rank[0]]


def _run(job: Job, shards: Sequence[Shard], workers: int, report: Report) -> None:
    if workers != 1:
        raise UsageError("--workers is for --engine local and ray; here the scheduler says how many there are")
    if not shards:
        return
    work, queue = job.open(), Queue(job, shards, report)
    while shard := queue.take():
        queue.end(attempt(shard, job, work))
