"""What engines share: shards that wait, the shards that failed and are tried again, and the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from captioner.scale.engines import remover
from captioner.scale.job import Job, Outcome, give_up
from captioner.scale.shards import Shard

Report = Callable[[Outcome], None]
"""Is told the end of each shard."""


class Queue:
    """Shards that wait; those that fail come back until their retries are used up."""

    def __init__(self, job: Job, shards: Sequence[Shard], report: Report) -> None:
        self._job, self._report = job, report
        self._waiting = deque(shards)
        self._attempts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Shard | None:
        """The next shard; None where there is none."""
        return self._waiting.popleft() if self._waiting else None

    def end(self, outcome: Outcome) -> None:
        """Note the end of an attempt."""
        name = outcome.shard.name
        self._attempts[name] += 1
        if outcome.error and self._attempts[name] <= self._job.retries:
            self._waiting.append(outcome.shard)
            return
        if outcome.error:
            give_up(outcome, self._job, self._attempts[name])
        self._report(outcome)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that start in this block; those that are set already stay as they are."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder for the temporary files of a run, which is removed even when this process is killed: by another one.

    That also ends processes that use it then.
    """
    folder = tempfile.mkdtemp(prefix="captioner-")
    command = [sys.executable, "-I", "-S", remover.__file__, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):  # Ctrl-C does not reach it
        yield folder
