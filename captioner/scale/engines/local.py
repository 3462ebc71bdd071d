"""Local processes, each of which loads the model once; they share the cores."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from captioner.errors import CaptionerError
from captioner.scale.engines.base import Queue, Report, cores, environment, temporary_folder
from captioner.scale.job import Job, Outcome, attempt
from captioner.scale.shards import Shard

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CONTEXT = get_context("spawn")  # a fork can hang after torch or ONNX Runtime has started threads


def run(job: Job, shards: Sequence[Shard], workers: int, report: Report) -> None:
    """Process ``shards`` with ``workers`` processes.

    A process that dies uses up one attempt at its shard and is replaced. Raises ``CaptionerError`` if a process cannot
    load the model.
    """
    queue = Queue(job, shards, report)
    crew: list[_Worker] = []
    with temporary_folder() as spool:
        try:
            while len(queue) or crew:
                while len(crew) < workers and (shard := queue.take()):
                    crew.append(_Worker.start(job, shard, workers, spool))
                for ready in connection.wait([worker.pipe for worker in crew]):
                    worker = next(one for one in crew if one.pipe is ready)
                    outcome = worker.outcome()
                    queue.end(outcome)
                    if worker.is_alive and (shard := queue.take()):
                        worker.give(shard)
                    else:
                        worker.stop()
                        crew.remove(worker)
        finally:
            for worker in crew:
                worker.process.kill()
                worker.process.join()


@dataclass
class _Worker:
    """A process and the shard that it works on."""

    process: BaseProcess
    pipe: Connection
    shard: Shard
    is_alive: bool = True

    @classmethod
    def start(cls, job: Job, shard: Shard, workers: int, spool: str) -> _Worker:
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_serve, args=(job, theirs, spool), daemon=True)
        with environment(dict.fromkeys(THREADS, str(max(1, cores() // workers)))):
            process.start()
        theirs.close()  # so that the pipe closes when the process dies
        worker = cls(process, ours, shard)
        worker.give(shard)
        return worker

    def give(self, shard: Shard) -> None:
        self.shard = shard
        with suppress(BrokenPipeError):  # it died; outcome() reports it
            self.pipe.send(shard)

    def outcome(self) -> Outcome:
        """Wait for the outcome of the shard."""
        try:
            found: Outcome | CaptionerError = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.is_alive = False
            self.process.join()
            return Outcome(self.shard, error=_death(self.process.exitcode or 0))
        if isinstance(found, CaptionerError):
            raise found
        return found

    def stop(self) -> None:
        self.pipe.close()
        self.process.join()


def _death(status: int) -> str:
    if status < 0:
        return f"its process was killed by {signal.Signals(-status).name}; if that is SIGKILL, memory may be short"
    return f"its process ended with exit status {status}"


def _serve(job: Job, pipe: Connection, spool: str) -> None:
    """Main function of a process: handle the shards from the pipe until it closes; temporary files go to ``spool``."""
    tempfile.tempdir = spool
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the driver ends its own
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        work = job.open()
    except CaptionerError as error:
        pipe.send(CaptionerError(str(error)))
        return
    with suppress(EOFError, ConnectionError):
        while True:
            pipe.send(attempt(pipe.recv(), job, work))


def _die_with_parent() -> None:
    """End this process when the driver ends, even if it was killed and could send no message."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
