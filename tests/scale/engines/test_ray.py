from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from captioner.errors import CaptionerError, UsageError
from captioner.scale.engines.base import environment
from captioner.scale.engines.ray import OBJECTS, PRIVATE, embedded, run
from captioner.scale.job import Job, Outcome, run_shard, start_run
from captioner.scale.shards import Shard
from tests.conftest import CHECKOUT
from tests.scale.toy import make_job, records, shards_of, write_tar, write_tars

VARIABLES = {**PRIVATE, **embedded()}
with environment(VARIABLES):  # or the nodes of a cluster would listen on all addresses of this machine
    ray = pytest.importorskip("ray", reason="needs Ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves it to the collector to close its files


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Actors import the work of these tests; Ray reads a token once in a process."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield
    gc.collect()  # before other tests, where its warnings are errors


def test_actors_give_the_files_of_one_process_and_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch shards that are lost or repeated, a dead actor that ends or hangs the run, and endless retries."""
    monkeypatch.chdir(tmp_path)
    write_tars(Path("in"), 4)
    write_tar(Path("in/once.tar"), {"1.png": b"ONCE" + str(tmp_path / "mark").encode(), "2.png": b"x"})
    write_tar(Path("in/die.tar"), {"1.png": b"DIE"})
    write_tar(Path("in/raise.tar"), {"1.png": b"RAISE"})
    names = ["000", "001", "002", "003", "once", "die", "raise"]
    shards = shards_of([f"in/{name}.tar" for name in names])
    job, done = make_job("out", retries=1), list[Outcome]()
    before = dict(os.environ, PYTHONBREAKPOINT="ray.util.rpdb._driver_set_trace")
    run(job, start_run(job, shards), 2, done.append)
    assert dict(os.environ) == before and not ray.is_initialized()
    errors = {Path(one.shard.source).stem: one.error for one in done}
    assert sorted(errors) == sorted(names)
    assert "worker process has died" in errors.pop("die") and "RuntimeError" in errors.pop("raise")
    assert not any(errors.values())
    assert records(tmp_path / "out") == undisturbed(tmp_path / "plain", shards[:5])


def undisturbed(folder: Path, shards: list[Shard]) -> dict[str, bytes]:
    """The files of a run in this process alone."""
    job = make_job(folder)
    for shard in shards:
        run_shard(shard, job, job.open())
    return records(folder)


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path) -> None:
    """Would catch actors that are started again for ever, and a node with another model of the same name."""
    shards = shards_of(write_tars(tmp_path, 2))
    options = {"model": str(tmp_path / "none.safetensors"), "device": "cpu", "prompt": None, "options": {}}
    with pytest.raises(CaptionerError, match="no such model"):
        run(Job("caption", options, {}, str(tmp_path / "out")), shards, 1, list[Outcome]().append)
    other = replace(make_job(tmp_path / "out", beam=1), settings={"beam": 2})
    with pytest.raises(CaptionerError, match="another model"):
        run(other, shards, 1, list[Outcome]().append)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """Three nodes with raylets of their own, on this machine. The first takes no work; the driver is on any of them."""
    from ray.cluster_utils import Cluster

    node = {"include_dashboard": False, "object_store_memory": OBJECTS}
    found = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0})
    try:
        for _ in range(2):
            found.add_node(**node, num_cpus=2)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def test_a_node_that_is_lost_during_the_run(tmp_path: Path, cluster: Any) -> None:
    """Would catch shards that are lost with their node, and a run that waits for it."""
    shards = shards_of(write_tars(tmp_path / "in", 12))
    job, done = make_job(tmp_path / "out", delay=0.1), list[Outcome]()

    def report(outcome: Outcome) -> None:
        done.append(outcome)
        if len(done) == 2:
            here = ray.get_runtime_context().get_node_id()
            (mine,) = (node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == here)
            others = (node for node in cluster.worker_nodes if node.raylet_socket_name != mine)
            cluster.remove_node(next(others), allow_graceful=False)

    run(job, start_run(job, shards), 2, report, cluster.address)
    assert sorted(one.shard.name for one in done if one.stats) == [shard.name for shard in shards]
    assert records(tmp_path / "out") == undisturbed(tmp_path / "plain", shards)


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    """Would catch a traceback, or a run that is embedded although a cluster was named."""
    job, shards = make_job(tmp_path / "out"), shards_of(write_tars(tmp_path, 1))
    with pytest.raises(UsageError, match="no Ray cluster can be reached at 127.0.0.1:1"):
        run(job, shards, 1, list[Outcome]().append, "127.0.0.1:1")
