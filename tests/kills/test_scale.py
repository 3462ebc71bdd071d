"""SIGKILL of the driver and of workers of a run on shards, at random moments: the same files, and nothing twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pytest

from captioner.registry import resolve
from captioner.scale.engines import ENGINES
from captioner.scale.job import start_run
from captioner.scale.status import read_status
from tests.conftest import CHECKOUT
from tests.scale.toy import make_job, records, shards_of, write_tars

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["captioner.scale.engines.local", "captioner.scale.captions", "tests.scale.toy"])
WORKERS, SHARDS = 2, 30
ENDLESS = 10_000
"""Retries: here shards fail because their workers are killed."""
DELAYS = {"local": 0.01, "ray": 0.05}
"""Seconds for an image: a run should last longer than its engine's start."""
SHARES = {"local": 1.0, "ray": 0.5}
"""Of the kills that are asked for: Ray needs several seconds to start."""
COMMANDS = b"multiprocessing.spawn", b"default_worker.py", b"ray::Worker", b"ray::IDLE"
"""Parts of the command lines of workers; Ray renames its own when they are ready."""


def drive(engine: str, sources: list[str], output: str, spool: str) -> None:
    """What a driver does."""
    os.environ |= {"TMPDIR": spool, "PYTHONPATH": str(CHECKOUT)}
    tempfile.tempdir = None
    job = make_job(output, retries=ENDLESS, delay=DELAYS[engine])
    run = resolve(ENGINES, engine, "engine")
    run(job, start_run(job, shards_of(sources)), WORKERS, lambda outcome: None)


def parents() -> dict[int, int]:
    """The parents of all processes that are alive."""
    found = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":  # ended, and nobody has asked how
                found[int(folder.name)] = int(parent)
    return found


def below(driver: int | None) -> dict[int, bytes]:
    """Command lines of the processes that ``driver`` and those below it started and that are alive."""
    found, every = {driver}, parents()
    while more := {pid for pid, parent in every.items() if parent in found} - found:
        found |= more
    lines = {}
    for pid in found - {driver}:
        with suppress(OSError):
            lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return lines


def kill_a_worker(driver: int | None, moments: random.Random) -> bool:
    """Kill one of the driver's workers, where it has one."""
    workers = [pid for pid, command in below(driver).items() if any(one in command for one in COMMANDS)]
    with suppress(ProcessLookupError):
        for pid in workers and [moments.choice(sorted(workers))]:
            os.kill(pid, signal.SIGKILL)
    return bool(workers)


def wait_for_the_end_of(workers: Mapping[int, bytes], spool: Path) -> None:
    """Would catch workers that go on without their driver, and temporary files that nobody removes."""
    limit = time.monotonic() + 30
    while left := [workers[pid] for pid in workers.keys() & parents()] or os.listdir(spool):
        assert time.monotonic() < limit, f"still there without their driver: {left}"
        time.sleep(0.01)


@pytest.fixture
def spool() -> Iterator[Path]:
    """The folder for temporary files; its name is short, because those of sockets have a limit."""
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        yield Path(folder)


def run_and_kill(
    engine: str, sources: list[str], out: Path, spool: Path, moments: random.Random, seconds: float
) -> int:
    """Kill a worker or the driver, or first one and then the other; ``seconds`` 0 kills none. Returns the kills."""
    driver = CONTEXT.Process(target=drive, args=(engine, sources, str(out), str(spool)))
    driver.start()
    driver.join(moments.uniform(0, seconds) if seconds else None)
    killed = 0
    if driver.is_alive() and moments.random() < 0.5 and kill_a_worker(driver.pid, moments):
        killed += 1  # the driver replaces it, and goes on
        driver.join(moments.uniform(0, seconds))
    workers = below(driver.pid) if driver.is_alive() else {}
    driver.kill()
    driver.join()
    assert driver.exitcode in (0, -signal.SIGKILL)
    wait_for_the_end_of(workers, spool)
    assert driver.exitcode or len(list(out.glob("0*.json"))) == SHARDS
    return killed + (driver.exitcode == -signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("engine", DELAYS)
def test_a_run_on_shards(tmp_path: Path, request: pytest.FixtureRequest, engine: str, spool: Path) -> None:
    """Would catch a shard that is lost, done twice, or half-written, and a run that a dead worker holds up."""
    if engine == "ray" and find_spec("ray") is None:
        pytest.skip("needs Ray")
    kills, moments = round(SHARES[engine] * request.config.getoption("--kills")), random.Random(0)
    sources, whole, out = write_tars(tmp_path / "in", SHARDS), tmp_path / "whole", tmp_path / "out"
    began = time.monotonic()
    run_and_kill(engine, sources, whole, spool, moments, 0)
    seconds, wanted = time.monotonic() - began, records(whole)
    assert len(wanted) == SHARDS
    killed = ends = 0
    done: dict[str, int] = {}
    while killed < kills or not ends:
        killed += run_and_kill(engine, sources, out, spool, moments, seconds if killed < kills else 0)
        now = {path.name: path.stat().st_mtime_ns for path in out.glob("0*.json")}
        assert now.items() >= done.items()
        assert all(records(out)[name.replace("json", "jsonl")] == wanted[name.replace("json", "jsonl")] for name in now)
        done = now
        if len(now) == SHARDS:
            ends += 1
            check_end(out, whole, killed)
            done = {}


def check_end(out: Path, whole: Path, killed: int) -> None:
    """What is true of a run that is done, which is removed then."""
    assert records(out) == records(whole)
    left = {path.name for path in out.iterdir()} ^ {path.name for path in whole.iterdir()}
    assert all(name.startswith(".run.json.") or (name.endswith(".running") and killed) for name in left)
    sources = [str(out.parent / "in" / f"{number:03}.tar") for number in range(SHARDS)]
    assert start_run(make_job(out), shards_of(sources)) == []  # which removes the signs of life that are left
    assert not list(out.glob("*.running"))
    assert (read_status(str(out)).done, read_status(str(out)).failed) == (SHARDS, {})
    keys = [json.loads(line)["key"] for data in records(out).values() for line in data.splitlines()]
    assert len(set(keys)) == len(keys) == 4 * SHARDS
    shutil.rmtree(out)
