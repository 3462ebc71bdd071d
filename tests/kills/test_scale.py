"""SIGKILL of the driver and of workers of a run on shards, at random moments: the same files, and nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest

from captioner.scale.engines.local import run
from captioner.scale.job import start_run
from captioner.scale.status import read_status
from tests.scale.toy import make_job, records, shards_of, write_tars

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["captioner.scale.engines.local", "captioner.scale.captions", "tests.scale.toy"])
WORKERS, SHARDS = 2, 30
ENDLESS = 10_000
"""Retries: here shards fail because their workers are killed."""


def drive(sources: list[str], output: str) -> None:
    """What a driver does."""
    job = make_job(output, retries=ENDLESS, delay=0.01)
    run(job, start_run(job, shards_of(sources)), WORKERS, lambda outcome: None)


def children(pid: int) -> Iterator[int]:
    """The processes that ``pid`` started and that are alive."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                yield int(folder.name)


def wait_for_the_end_of(pids: list[int]) -> None:
    """Would catch workers that go on without their driver."""
    limit = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < limit, f"still there without their driver: {pids}"
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_run_on_shards(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Would catch a shard that is lost, done twice, or half-written, and a run that a dead worker holds up."""
    kills, moments = int(request.config.getoption("--kills")), random.Random(0)
    sources, whole, out = write_tars(tmp_path / "in", SHARDS), tmp_path / "whole", tmp_path / "out"
    began = time.monotonic()
    drive(sources, str(whole))
    seconds, wanted = time.monotonic() - began, records(whole)
    assert len(wanted) == SHARDS
    killed = ends = 0
    done: dict[str, int] = {}
    while killed < kills or not ends:
        driver = CONTEXT.Process(target=drive, args=(sources, str(out)))
        driver.start()
        driver.join(moments.uniform(0, seconds) if killed < kills else None)
        assert driver.pid is not None
        workers = list(children(driver.pid)) if driver.is_alive() else []
        if workers and moments.random() < 0.5:
            os.kill(moments.choice(workers), signal.SIGKILL)  # the driver replaces it, and goes on
            killed += 1
            driver.join(moments.uniform(0, seconds))
            workers = list(children(driver.pid)) if driver.is_alive() else []
        driver.kill()
        driver.join()
        wait_for_the_end_of(workers)
        killed += driver.exitcode == -signal.SIGKILL
        assert driver.exitcode in (0, -signal.SIGKILL)
        now = {path.name: path.stat().st_mtime_ns for path in out.glob("0*.json")}
        assert now.items() >= done.items()
        assert all(records(out)[name.replace("json", "jsonl")] == wanted[name.replace("json", "jsonl")] for name in now)
        done = now
        if driver.exitcode == 0:
            ends += 1
            assert records(out) == wanted
            left = {path.name for path in out.iterdir()} ^ {path.name for path in whole.iterdir()}
            assert all(name.startswith(".run.json.") or (name.endswith(".running") and killed) for name in left)
            assert start_run(make_job(out), shards_of(sources)) == []  # which removes the signs of life that are left
            assert not list(out.glob("*.running"))
            assert (read_status(str(out)).done, read_status(str(out)).failed) == (SHARDS, {})
            keys = [json.loads(line)["key"] for data in wanted.values() for line in data.splitlines()]
            assert len(set(keys)) == len(keys) == 4 * SHARDS
            for path in out.iterdir():
                path.unlink()
            done = {}
