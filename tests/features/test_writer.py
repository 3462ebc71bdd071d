"""The writer keeps every row that was flushed, whatever ends the process, and never mixes features."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner.errors import FeatureStoreError, UsageError
from captioner.features.spec import FeatureSpec
from captioner.features.store import FeatureStore
from captioner.features.writer import FeatureWriter
from tests.features.fakes import SPEC, fill, tiny_backbone, vector


def test_writing_again_adds_what_is_missing(tmp_path: Path) -> None:
    """A block that raises keeps its rows for the next run; a second run keeps the first one's."""
    path = tmp_path / "a.h5"
    with pytest.raises(RuntimeError), FeatureWriter(path, SPEC, "w") as writer:
        writer.add("0.jpg", vector(0))
        raise RuntimeError
    partial = FeatureStore(path)
    assert partial.ids == ["0.jpg"] and any("interrupted" in problem for problem in partial.verify())
    fill(path, range(1, 3))
    with FeatureWriter(path, SPEC, "w") as writer:
        assert writer.plan(["2.jpg", "3.jpg", "4.jpg"]) == ["3.jpg", "4.jpg"]
        writer.add("4.jpg", vector(4))
        writer.add("0.jpg", vector(9))  # is there already
    store = FeatureStore(path)
    assert sorted(store.ids) == ["0.jpg", "1.jpg", "2.jpg", "4.jpg"] and store.unfinished == ["3.jpg"]
    np.testing.assert_allclose(store.get(["0.jpg", "4.jpg"]), [vector(0), vector(4)], atol=1e-3, rtol=1e-3)
    assert store.verify() == ["1 rows are unfinished, first 3.jpg"]
    assert [item.name for item in tmp_path.iterdir()] == ["a.h5"]


STEPS = st.lists(st.one_of(st.integers(0, 9), st.sampled_from(["flush", "kill", "stop", "finish"])), max_size=12)


@given(STEPS)
@settings(max_examples=25, deadline=None)  # each example writes several files
def test_any_interrupted_run_ends_in_the_same_store(steps: list[int | str]) -> None:
    """Would catch rows lost, repeated or exchanged by some order of adding, flushing, killing and starting again.

    A killed process leaves what is on disk, so the run goes on in a copy of the folder.
    """
    names = [f"{number}.jpg" for number in range(10)]
    killed: list[FeatureWriter] = []
    with tempfile.TemporaryDirectory() as name, patch("captioner.features.writer.provenance", dict):
        folder, safe = Path(name) / "0", set[str]()  # safe: rows that must survive
        writer = FeatureWriter(folder / "a.h5", SPEC, "w", "float32")
        for step in steps:
            if isinstance(step, int):
                writer.add(names[step], vector(step))
                continue
            if step == "kill":
                killed.append(writer)
                folder = Path(shutil.copytree(folder, Path(name) / str(len(killed))))
            else:
                safe = set(writer.finished)
                writer.flush() if step == "flush" else writer.close(merge=step == "finish")
            if step != "flush":
                writer = FeatureWriter(folder / "a.h5", SPEC, "w", "float32")
                assert writer.finished == safe
        for number in range(10):
            writer.add(names[number], vector(number))
        writer.close()
        store = FeatureStore(folder / "a.h5")
        assert sorted(store.ids) == names and store.verify() == []
        np.testing.assert_array_equal(store.get(names), [vector(number) for number in range(10)])
        assert os.listdir(folder) == ["a.h5"]
        for left in killed:
            left.close(merge=False)


# Forks writers and kills each at a random moment, in the middle of flushes and merges; after each death everything that
# was acknowledged must be readable and right.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, ".")
from captioner.features import writer as module
from captioner.features.store import FeatureStore
from tests.features.fakes import SPEC, vector

path, rounds, module.FLUSH_ROWS = Path(sys.argv[1]), int(sys.argv[2]), 5
random.seed(0)
vectors = [vector(number) for number in range(100)]

def write(answers):
    while True:  # each turn adds 30 rows in 6 flushes, then merges
        with module.FeatureWriter(path, SPEC, "w", "float32") as writer:
            first = len(writer.finished)
            for number in range(first, first + 30):
                writer.add(str(number), vectors[number % 100])
                if not writer._buffer:
                    os.write(answers, f"{number}\\n".encode())

total, merged = 0, 0
for _ in range(rounds):
    read, answers = os.pipe()
    child = os.fork()
    if not child:
        write(answers)
    os.close(answers)
    with os.fdopen(read) as lines:
        for _ in range(random.randint(1, 20)):  # flushes, however long a busy machine takes for them
            total = max(total, int(lines.readline()) + 1)
        time.sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        total = max([total, *(int(line) + 1 for line in lines)])
    features = FeatureStore(path)
    names = [str(number) for number in range(total)]
    assert (features.get(names) == [vectors[number % 100] for number in range(total)]).all()
    assert len(set(features.ids)) == len(features.ids)
    merged += path.exists()
assert merged > rounds / 2 and total > 100, (merged, total)
with module.FeatureWriter(path, SPEC, "w", "float32"):
    pass
features = FeatureStore(path)
assert features.verify() == [], features.verify()
assert os.listdir(path.parent) == [path.name], os.listdir(path.parent)
print(total)
"""


def test_nothing_finished_is_lost_by_kill_9(tmp_path: Path) -> None:
    script = [sys.executable, "-W", "error", "-c", KILLER, str(tmp_path / "store" / "a.h5"), "12"]
    run = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "a.h5", SPEC, "w"), pytest.raises(FeatureStoreError, match="a.h5: another process"):
        FeatureWriter(tmp_path / "a.h5", SPEC, "w")


# Extracts slowly with forked workers, so that the test can kill it while they run.
EXTRACTION = """
import sys, time
sys.path.insert(0, ".")
from captioner.features import extract as module
from captioner.data.images import find_named
from tests.features.fakes import tiny_backbone

open_image = module.open_image
module.open_image = lambda path: time.sleep(0.2) or open_image(path)
module.extract(find_named([sys.argv[1]]), tiny_backbone(), sys.argv[2], workers=2, batch_size=2, context="fork",
               progress=lambda done, total: print(done, flush=True))
"""


def is_running(process: str) -> bool:
    """Whether the process exists and is not a zombie, which PID 1 of a container may never collect."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and needs fork")
def test_workers_of_a_killed_run_do_not_hold_its_lock(tmp_path: Path) -> None:
    """Would catch a lock file that forked workers inherit and keep: the next run would be refused for as long."""
    (tmp_path / "album").mkdir()
    for number in range(60):
        Image.new("RGB", (8, 8), (number,) * 3).save(tmp_path / "album" / f"{number}.png")
    script = [sys.executable, "-c", EXTRACTION, str(tmp_path / "album"), str(tmp_path / "a.h5")]
    run = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    try:
        assert run.stdout.readline() == "2\n"
        workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        with pytest.raises(FeatureStoreError, match="another process"):
            FeatureWriter(tmp_path / "a.h5", SPEC, tiny_backbone().weights_digest)
    finally:
        run.kill()
        run.wait()  # not communicate, which waits until the workers have closed the pipe, too
        run.stdout.close()
    assert len(workers) == 2 and all(map(is_running, workers))
    deadline = time.monotonic() + 5  # seconds; 0.05 as measured, 0.4 with a filelock older than 3.31
    while True:
        try:
            FeatureWriter(tmp_path / "a.h5", SPEC, tiny_backbone().weights_digest).close(merge=False)
            break
        except FeatureStoreError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline + 5, "workers outlive their parent"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spec": replace(SPEC, key="other")}, "has feature tiny, this run has other"),
        ({"spec": replace(SPEC, size=9)}, "spec digest"),
        ({"digest": "v"}, "has weights digest w, this run has v"),
        ({"dtype": "float32"}, "has dtype float16, this run has float32"),
        ({"crops": 10}, "has crops 1, this run has 10"),
        ({"mirrored": True}, "has mirrored False, this run has True"),
        ({"precision": "bfloat16"}, "precision"),
    ],
)
def test_refuses_to_mix(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Would catch features of two networks in one file, in a run and in a folder."""
    fill(tmp_path / "a.h5", range(3))
    with pytest.raises(FeatureStoreError, match=message):
        fill(tmp_path / "a.h5", range(3, 5), **dict(options))
    fill(tmp_path / "b.h5", range(3, 5), **dict(options))
    with pytest.raises(FeatureStoreError, match=r"b.h5 has .*, .*a.h5 has"):
        FeatureStore(tmp_path).get(["1.jpg"])
    assert FeatureStore(tmp_path / "a.h5").verify() == []  # the refused run left nothing behind


def test_refuses_another_dimension(tmp_path: Path) -> None:
    fill(tmp_path / "a.h5", range(3))
    with pytest.raises(FeatureStoreError, match=r"has shape \(12,\), this run has \(5,\)"):
        FeatureWriter(tmp_path / "a.h5", replace(SPEC, dimension=5), "w")


@pytest.mark.parametrize(
    ("value", "message"), [(1e5, "1e\\+05, too large for float16; use --dtype float32"), (np.nan, "not finite")]
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, value: float, message: str) -> None:
    """float16 ends at 65,504; would catch infinities written silently."""
    with pytest.raises(FeatureStoreError, match=message), FeatureWriter(tmp_path / "a.h5", SPEC, "w") as writer:
        writer.add("a", np.full(12, value, np.float32))


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    spec = FeatureSpec("flow", 3, frames=4)
    with FeatureWriter(tmp_path / "a.h5", spec) as writer:
        with pytest.raises(FeatureStoreError, match=r"x has shape \(3,\), expected \(4, 3\)"):
            writer.add("x", np.zeros(3, np.float32))
        with pytest.raises(FeatureStoreError, match=r"x has shape \(3, 4\), expected \(4, 3\)"):
            writer.add("x", np.zeros((3, 4), np.float32))
    with pytest.raises(FeatureStoreError, match="dtype: 'float64' is not one of float16, float32"):
        FeatureWriter(tmp_path / "b.h5", spec, dtype="float64")


def test_a_long_list_of_names_is_stored(tmp_path: Path) -> None:
    """Would catch HDF5's limit of 64 kB, were the spec an attribute of fixed length."""
    spec = FeatureSpec("labels@marginals", 9000, names=tuple(f"object=thing number {n}" for n in range(9000)))
    with FeatureWriter(tmp_path / "a.h5", spec) as writer:
        writer.add("clip", np.zeros(9000, np.float32))
    assert FeatureStore(tmp_path / "a.h5").spec == spec


def test_the_file_is_as_documented(tmp_path: Path) -> None:
    fill(tmp_path / "a.h5", range(2), part=(2, 4), crops=10)
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) == {"ids", "features", "finished", "checksums"}
        assert file["features"].shape == (2, 12) and file["features"].chunks is None
        names = "format version feature spec spec_digest weights_digest dtype crops mirrored precision part provenance"
        assert set(file.attrs) == {*names.split(), "crc32", "index_crc32"}
        assert (file.attrs["feature"], file.attrs["spec_digest"]) == (SPEC.key, SPEC.digest)
        assert (file.attrs["part"], file.attrs["crops"], file.attrs["version"]) == ("2/4", 10, 2)


def test_a_store_behind_a_link_and_what_cannot_be_one(tmp_path: Path) -> None:
    """Would catch a link replaced by the store, rows in two folders of parts, and a pipe whose reader waits forever."""
    store, link, pipe = tmp_path / "disk" / "a.h5", tmp_path / "a.h5", tmp_path / "pipe.h5"
    fill(store, range(1))
    link.symlink_to(store)
    with pytest.raises(RuntimeError), FeatureWriter(link, SPEC, "w") as writer:
        writer.add("1.jpg", vector(1))
        raise RuntimeError
    assert FeatureStore(store).ids == FeatureStore(link).ids == ["0.jpg", "1.jpg"]
    fill(link, range(2, 3))
    assert link.is_symlink() and FeatureStore(store).ids == ["0.jpg", "1.jpg", "2.jpg"]
    os.mkfifo(pipe)
    with pytest.raises(FeatureStoreError, match="not a regular file"):
        FeatureWriter(pipe, SPEC, "w")
    store.chmod(0o444)
    with pytest.raises(UsageError, match="write-protected"):
        FeatureWriter(link, SPEC, "w")
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["a.h5", "a.h5", "disk", "pipe.h5"]


def test_the_metadata_of_a_file_have_checksums(tmp_path: Path) -> None:
    """Would catch HDF5's oldest format, in which a bit that flips may crash or mislead the library."""
    fill(tmp_path / "a.h5", range(3))
    assert (tmp_path / "a.h5").read_bytes()[8] >= 2  # version of the superblock
