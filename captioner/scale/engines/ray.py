"""Ray actors, each of which loads the model once: on this machine, or on an existing cluster."""

from __future__ import annotations

import functools
import os
import platform
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from captioner.errors import CaptionerError, UsageError
from captioner.optional import require
from captioner.places import is_address
from captioner.scale.engines.base import Queue, Report, cores, environment, temporary_folder
from captioner.scale.job import Job, Outcome, attempt
from captioner.scale.shards import Shard

PRIVATE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Ray sends no usage statistics, and hides no GPU from an actor without one."""
NICE = {"RAY_worker_niceness": "0"}
"""Actors have this command's priority, as in the engine ``local``; Ray's default is nice 15."""
OBJECTS = 80 * 2**20
"""Bytes of Ray's shared memory: the fewest that it accepts, since shards and outcomes are small."""

STARTS = 3
"""Attempts to start an embedded Ray. It waits 30 s for its own processes, too short a time on a busy machine."""
CONNECT = 10.0
"""Seconds within which a cluster must answer."""


def run(job: Job, shards: Sequence[Shard], workers: int, report: Report, address: str | None = None) -> None:
    """Process ``shards`` with ``workers`` actors, on the cluster at ``address`` or ``RAY_ADDRESS``, else locally.

    If an actor or its node is lost, that uses up one attempt at its shard, and the actor is replaced. Raises
    ``CaptionerError`` if an actor cannot load the model, ``UsageError`` if there is no such cluster.
    """
    queue = Queue(job, shards, report)
    with _connected(address or os.environ.get("RAY_ADDRESS"), workers) as (ray, spool):
        share = _share(ray, job, workers)
        crew: dict[Any, tuple[Any, Shard | None]] = {}  # by the awaited call; no shard while the model is loading
        while len(queue) or any(shard for _, shard in crew.values()):
            while len(crew) < workers and sum(shard is None for _, shard in crew.values()) < len(queue):
                actor = ray.remote(Worker).options(**share).remote()
                crew[actor.open.remote(job, os.getcwd(), spool)] = actor, None
            (ready, *_), _ = ray.wait(list(crew), num_returns=1)
            actor, shard = crew.pop(ready)
            if _is_alive(ray, ready, shard, queue) and (shard := queue.take()):
                crew[actor.attempt.remote(shard)] = actor, shard
            else:
                ray.kill(actor)


class Worker:
    """The actors' class."""

    def open(self, job: Job, folder: str, spool: str | None) -> str:
        """Load the model; returns an error, or ''.

        The actor works in the driver's folder. Its temporary files go to ``spool``, or to its node's default.
        """
        tempfile.tempdir = spool
        try:
            os.chdir(folder)
        except OSError:
            if not is_address(job.output):
                return f"{platform.node()} has no folder {folder}; start from one that all nodes share"
        try:
            self._job, self._work = job, job.open()
        except CaptionerError as error:
            return str(error)
        return "" if self._work.settings() == job.settings else f"{platform.node()} has another model of this name"

    def attempt(self, shard: Shard) -> Outcome:
        return attempt(shard, self._job, self._work)


def _is_alive(ray: Any, ready: Any, shard: Shard | None, queue: Queue) -> bool:
    """Record an actor's result; returns whether it can continue. ``CaptionerError`` if it cannot load the model."""
    try:
        found: Outcome | str = ray.get(ready)
    except ray.exceptions.RayError as error:
        shard = shard or queue.take()  # an attempt, or actors that die while loading would be replaced for ever
        if shard:
            queue.end(Outcome(shard, error=_death(str(error))))
        return False
    if isinstance(found, Outcome):
        queue.end(found)
    elif found:
        raise CaptionerError(found)
    return True


def _death(message: str) -> str:
    """The cause of an actor's death, from the many lines of Ray's error."""
    found = re.search(r"because (its .*? has died)", message)
    return f"{found[1]}; memory may be short" if found else f"its actor was lost: {' '.join(message.split())}"


@functools.cache
def embedded() -> Mapping[str, str]:
    """Variables that limit Ray to 127.0.0.1 (its default on macOS) and to holders of a token, that is to this user.

    Ray reads them when it is imported, so there are none if it has already been imported.
    """
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {} if "ray" in sys.modules else {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **token}


@contextmanager
def _connected(address: str | None, workers: int) -> Iterator[tuple[Any, str | None]]:
    """Connect to Ray within the block; also gives the temporary folder of an embedded Ray and its actors, else None."""
    with ExitStack() as stack:
        folder = None
        options: dict[str, Any] = {"address": address}
        variables: Mapping[str, str] = PRIVATE
        if address:
            _check_reachable(address)
        else:
            folder = stack.enter_context(temporary_folder())
            variables = {**PRIVATE, **NICE, **embedded()}
            options = {"address": "local", "num_cpus": max(workers, cores()), "object_store_memory": OBJECTS}
            options |= {"include_dashboard": False, "_temp_dir": folder}
        stack.enter_context(environment(variables))  # before the import, which reads some of them
        ray = require("ray", "ray")
        stack.callback(ray.shutdown)
        _start(ray, options)
        yield ray, folder


def _start(ray: Any, options: Mapping[str, Any]) -> None:
    """Start Ray or connect to it; raises ``CaptionerError`` if it fails."""
    for start in range(1, STARTS + 1):
        try:
            ray.init(**options, log_to_driver=False, logging_level="error")
            return
        except Exception as error:  # Ray raises Exception itself if a node takes too long to start
            if start == STARTS or "timed out during startup" not in str(error):
                raise CaptionerError(f"Ray cannot be reached or started: {' '.join(str(error).split())}") from error


def _check_reachable(address: str) -> None:
    """Raise ``UsageError`` if nothing listens at ``address``; Ray itself would keep trying for many minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address)
    if found:
        try:
            socket.create_connection((found[1], int(found[2])), CONNECT).close()
        except (OSError, OverflowError) as error:
            raise UsageError(f"no Ray cluster can be reached at {address} ({error})") from error


def _share(ray: Any, job: Job, workers: int) -> dict[str, float]:
    """The resources of each actor: as many cores as leave room for all (Ray limits an actor's threads to them).

    Each actor also gets a GPU, if the cluster has some and the device is not the CPU.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    sizes = (size for size in range(max(nodes, default=1), 0, -1) if sum(node // size for node in nodes) >= workers)
    gpus = 1 if job.options.get("device", "cpu") != "cpu" and ray.cluster_resources().get("GPU") else 0
    return {"num_cpus": next(sizes, 1), "num_gpus": gpus}
