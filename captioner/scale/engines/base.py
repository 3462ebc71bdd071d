"""What the engines share: the queue of shards with retries, the number of cores, and temporary folders."""

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
"""Called with the final outcome of each shard."""


class Queue:
    """The shards that are still to do; failed ones come back until their retries are used up."""

    def __init__(self, job: Job, shards: Sequence[Shard], report: Report) -> None:
        self._job, self._report = job, report
        self._waiting = deque(shards)
        self._attempts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Shard | None:
        """The next shard; None if none is waiting."""
        return self._waiting.popleft() if self._waiting else None

    def end(self, outcome: Outcome) -> None:
        """Record the outcome of an attempt."""
        name = outcome.shard.name
        self._attempts[name] += 1
        if outcome.error and self._attempts[name] <= self._job.retries:
            self._waiting.append(outcome.shard)
            return
        if outcome.error:
            give_up(outcome, self._job, self._attempts[name])
        self._report(outcome)


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block, for the processes that it starts; existing variables are kept."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder for the temporary files of a run.

    A separate process (``remover.py``) removes it even if this one is killed, and ends processes that still use it.
    """
    folder = tempfile.mkdtemp(prefix="captioner-")
    command = [sys.executable, "-I", "-S", remover.__file__, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):  # Ctrl-C does not reach it
        yield folder
