"""Tars, tables that list images, and the files of a run on shards: damaged copies of valid ones."""

from __future__ import annotations

import functools
import gzip
import io
import json
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.data.images import SUFFIXES
from captioner.data.tars import read_tar
from captioner.features.shards import TarStore, read_shard
from captioner.scale.job import Job, Outcome, give_up, run_shard, start_run
from captioner.scale.keys import repeated_keys
from captioner.scale.patterns import expand_braces
from captioner.scale.shards import Shard, make_plan
from captioner.scale.status import read_status
from captioner.scale.tables import count_rows, table_rows
from tests.fuzz import attempt, corrupted, damaged, damaged_file, fuzz
from tests.fuzz.worker import isolated
from tests.scale.toy import make_job, shards_of, write_tar, write_tars


@functools.cache
def valid(name: str) -> bytes:
    """A valid file of this name's kind."""
    if name.endswith(".csv"):
        return b'key,path\n1,a.png\n2,"b,c.png"\n'
    if name.endswith(".jsonl"):
        return b'{"path": "a.png", "key": "1"}\n{"path": "b.png", "key": "2"}\n'
    stream = io.BytesIO()
    if name.endswith(".parquet"):
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        table = pa.table({"path": [f"{number}.png" for number in range(20)], "key": list(range(20))})
        parquet.write_table(table, stream, row_group_size=6)
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in ("a/1.png", "a/é.png", "x" * 200 + ".png"):
            info = tarfile.TarInfo(member)
            info.size = 100
            tar.addfile(info, io.BytesIO(bytes(100)))
        link = tarfile.TarInfo("a/2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return gzip.compress(stream.getvalue()) if name.endswith("gz") else stream.getvalue()


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@given(data=st.data())
@fuzz
def test_damaged_tars(tmp_path: Path, name: str, data: st.DataObject) -> None:
    path = tmp_path / name
    path.write_bytes(data.draw(corrupted(valid(name))))
    attempt(lambda: list(read_tar(str(path), SUFFIXES)))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@given(data=st.data())
@fuzz
def test_damaged_tables(tmp_path: Path, name: str, data: st.DataObject) -> None:
    path = tmp_path / name
    path.write_bytes(data.draw(damaged(valid(name))))
    read_table(path)


def read_table(path: Path) -> None:
    """Count the rows of a table and read some."""
    attempt(count_rows, str(path))
    attempt(lambda: list(table_rows(str(path), "path", 1, 10)))


@given(data=st.data())
@fuzz
def test_damaged_parquet(tmp_path: Path, data: st.DataObject) -> None:
    """In a process of its own: pyarrow is not Python."""
    path = tmp_path / "a.parquet"
    path.write_bytes(data.draw(corrupted(valid(path.name))))
    isolated(read_table, path)


@functools.cache
def valid_features() -> bytes:
    """A shard of 20 features of 3 numbers, one of them missing."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    vectors = pa.array([[np.float16(number)] * 3 for number in range(20)], pa.list_(pa.float16(), 3))
    errors = pa.array([None] * 19 + ["the file is empty"], pa.string())
    stream = io.BytesIO()
    keys = [f"{number}.png" for number in range(20)]
    parquet.write_table(pa.table({"key": keys, "features": vectors, "error": errors}), stream)
    return stream.getvalue()


def read_features(path: Path) -> None:
    """Read a shard of features."""
    attempt(read_shard, path, str(path), 3)


@given(data=st.data())
@fuzz
def test_damaged_features(tmp_path: Path, data: st.DataObject) -> None:
    """In a process of its own: pyarrow is not Python."""
    path = tmp_path / "00000.parquet"
    path.write_bytes(data.draw(corrupted(valid_features())))
    isolated(read_features, path)


@given(data=st.data())
@fuzz
def test_damaged_vectors(tmp_path: Path, data: st.DataObject) -> None:
    """Features in tars."""
    stream = io.BytesIO()
    np.save(stream, np.ones(20, np.float16))
    write_tar(tmp_path / "a.tar", {"a.npy": data.draw(corrupted(stream.getvalue()))})
    attempt(lambda: TarStore(tmp_path).get(["a"]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, list[Shard], dict[str, bytes]]:
    """A run of two shards of which one is done, and its files."""
    folder = tmp_path_factory.mktemp("run")
    job, shards = make_job(folder / "out"), shards_of(write_tars(folder, 2))
    start_run(job, shards)
    run_shard(shards[0], job, job.open())
    sign = {"format": "captioner-shard", "shard": "00001", "at": time.time() + 10_000, "began": 0.0}
    (folder / "out" / "00001.running").write_text(json.dumps(sign))
    give_up(Outcome(shards[1], error="damaged"), make_job(folder / "other"), 1)
    shutil.copy(folder / "other" / "00001.error.json", folder / "out")
    return job, shards, {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


@given(data=st.data())
@fuzz
def test_damaged_files_of_a_run(run: tuple[Job, list[Shard], dict[str, bytes]], data: st.DataObject) -> None:
    job, shards, files = run
    name = data.draw(st.sampled_from(sorted(files)))
    content = data.draw(damaged_file("a.jsonl" if name.endswith("jsonl") else "a.json", files[name]))
    for other, whole in files.items():
        Path(job.output, other).write_bytes(content if other == name else whole)
    attempt(read_status, job.output)
    attempt(repeated_keys, job.output)
    attempt(start_run, job, shards)


@given(text=st.text("{},.-0123a", max_size=30))
@fuzz
def test_any_pattern(text: str) -> None:
    names = attempt(expand_braces, text)
    assert names is None or names


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.csv", "a.jsonl", "a.parquet"])
def test_the_files_that_are_damaged_are_valid(tmp_path: Path, name: str) -> None:
    """Would catch damage that is done to files which nobody reads anyway."""
    (tmp_path / name).write_bytes(valid(name))
    assert len(make_plan([str(tmp_path / name)]).shards) == 1
    assert read_shard(io.BytesIO(valid_features()), "features", 3)[1].tolist() == [True] * 19 + [False]
    if "tar" in name:
        assert [bool(row.error) for row in read_tar(str(tmp_path / name), SUFFIXES)] == [False, False, False, True]
    else:
        assert len(list(table_rows(str(tmp_path / name), "path", 0, 2))) == 2
