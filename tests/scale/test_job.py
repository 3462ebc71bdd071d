from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from captioner.errors import DataError, UsageError
from captioner.scale.job import attempt, give_up, run_shard, start_run
from tests.scale.toy import make_job, records, shards_of, write_tar, write_tars


def test_a_shard_is_done_when_its_statistics_exist(tmp_path: Path) -> None:
    """Would catch a shard that is done again, or not again although its statistics are missing."""
    shards = shards_of(write_tars(tmp_path, 3))
    out = tmp_path / "out"
    job = make_job(out)
    assert start_run(job, shards) == shards
    stats = [run_shard(shard, job, job.open()) for shard in shards]
    assert [one["images"] for one in stats] == [4, 4, 4]
    first = records(out)
    assert json.loads(first["00001.jsonl"].splitlines()[0]) == {
        "key": "001/0.png",
        "shard": "00001",
        "size": 11,
        "error": None,
    }
    (out / "00000.running").touch()  # its process was killed right after it
    assert start_run(job, shards) == [] and not (out / "00000.running").exists()
    (out / "00001.json").unlink()
    assert start_run(job, shards) == [shards[1]]
    run_shard(shards[1], job, job.open())
    assert records(out) == first and not list(out.glob(".*")) + list(out.glob("*.running"))


def test_other_settings_and_sources_are_refused(tmp_path: Path) -> None:
    """Would catch captions of two models in one folder, and files of somebody else that are overwritten."""
    shards = shards_of(write_tars(tmp_path, 2))
    job = make_job(tmp_path / "out", beam=1)
    start_run(job, shards)
    run_shard(shards[0], job, job.open())
    for other in (make_job(tmp_path / "out", beam=2), make_job(tmp_path / "out", "parquet", beam=1)):
        with pytest.raises(UsageError, match="another model"):
            start_run(other, shards)
    write_tar(tmp_path / "000.tar", {"a.png": b"new"})
    with pytest.raises(UsageError, match="other sources"):
        start_run(job, shards_of([str(tmp_path / "000.tar")]))
    (tmp_path / "out" / "run.json").write_text("{}")
    with pytest.raises(DataError, match="not a file of captioner"):
        start_run(job, shards)


def test_fewer_sources_are_refused_and_more_are_not(tmp_path: Path) -> None:
    """Would catch captions of images that are no longer asked for among the results."""
    sources = write_tars(tmp_path, 3)
    shards = shards_of(sources)
    job = make_job(tmp_path / "out")
    for shard in start_run(job, shards[:2]):
        run_shard(shard, job, job.open())
    record = (tmp_path / "out" / "run.json").read_bytes()
    with pytest.raises(UsageError, match=r"00001.json is of a run with more or other sources"):
        start_run(job, shards_of(sources[:1]))
    assert (tmp_path / "out" / "run.json").read_bytes() == record
    assert start_run(job, shards) == shards[2:]


def test_a_bad_image_never_stops_a_shard(tmp_path: Path) -> None:
    """Would catch a failed row that is lost, or whose reason is."""
    tar = write_tar(tmp_path / "a.tar", {"1.png": b"ok", "2.png": b"BAD", "3.png": b"", "4.png": b"okay"})
    job = make_job(tmp_path / "out")
    (shard,) = shards_of([str(tar)])
    stats = run_shard(shard, job, job.open())
    assert (stats["images"], stats["failed"]) == (2, 2)
    rows = [json.loads(line) for line in (tmp_path / "out" / "00000.jsonl").read_text().splitlines()]
    assert [(row["key"], row["size"], row["error"]) for row in rows] == [
        ("1.png", 2, None),
        ("2.png", None, "a bad image"),
        ("3.png", None, "the file is empty"),
        ("4.png", 4, None),
    ]
    failed = [json.loads(line) for line in (tmp_path / "out" / "00000.failed.jsonl").read_text().splitlines()]
    assert failed == [{"key": row["key"], "error": row["error"]} for row in rows if row["error"]]


def test_a_bad_shard_is_an_outcome(tmp_path: Path) -> None:
    """Would catch half of a shard that passes for the whole, and an error that no file tells of."""
    whole = write_tar(tmp_path / "a.tar", {"1.png": b"x" * 3000}).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:2000])
    write_tar(tmp_path / "b.tar", {"1.png": b"RAISE"})
    shards = shards_of([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")])
    job = make_job(tmp_path / "out")
    outcomes = [attempt(shard, job, job.open()) for shard in shards]
    assert "cut off" in outcomes[0].error and outcomes[1].error == "RuntimeError: a fault in a decoder"
    assert not list((tmp_path / "out").glob("*.json*")) and not list((tmp_path / "out").glob(".*"))
    give_up(outcomes[0], job, 3)
    assert json.loads((tmp_path / "out" / "00000.error.json").read_text())["attempts"] == 3
    assert start_run(job, shards) == shards  # a later run tries again


def test_parquet_holds_the_same_records(tmp_path: Path) -> None:
    """Would catch columns of other types, and a file without the digest of its settings."""
    parquet = pytest.importorskip("pyarrow.parquet")
    tar = write_tar(tmp_path / "a.tar", {"1.png": b"ok", "2.png": b"BAD"})
    (shard,) = shards_of([str(tar)])
    for output_format in ("jsonl", "parquet"):
        job = make_job(tmp_path / output_format, output_format)
        stats = run_shard(shard, job, job.open())
    table = parquet.read_table(tmp_path / "parquet" / "00000.parquet")
    lines = (tmp_path / "jsonl" / "00000.jsonl").read_text().splitlines()
    assert table.to_pylist() == [json.loads(line) for line in lines]
    assert table.schema.metadata[b"captioner"].decode() == stats["digest"]


def test_an_object_store(tmp_path: Path) -> None:
    """Would catch inputs or outputs that are files of this disk only; memory:// is a store of fsspec's."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for path in write_tars(tmp_path, 2):
        store.pipe_file(f"/in/{Path(path).name}", Path(path).read_bytes())
    shards = shards_of(["memory:///in/*.tar"])
    assert shards == shards_of(["memory:///in/{000..001}.tar"])
    for output in ("memory://out/captions", str(tmp_path / "out")):
        job = make_job(output)
        assert start_run(job, shards) == shards
        for shard in shards:
            run_shard(shard, job, job.open())
        assert start_run(job, shards) == []
    assert records(tmp_path / "out") == {
        f"{n:05}.jsonl": store.cat_file(f"/out/captions/{n:05}.jsonl") for n in range(2)
    }


def test_a_finished_run_of_1000_shards_is_found_in_seconds(tmp_path: Path) -> None:
    """Would catch a restart that reads or hashes all output again, or takes time that grows with its square."""
    tar = Path(write_tars(tmp_path, 1)[0])
    sources = [str(tmp_path / f"{number:04}.tar") for number in range(1000)]
    for source in sources:
        os.link(tar, source)
    job, shards = make_job(tmp_path / "out"), shards_of([str(tmp_path / "{0000..0999}.tar")])
    assert [shard.source for shard in shards] == sources
    start_run(job, shards)
    stats = run_shard(shards[0], job, job.open())
    for shard in shards:
        done = stats | {"shard": shard.name, "digest": shard.digest(job.digest)}
        (tmp_path / "out" / f"{shard.name}.json").write_text(json.dumps(done))
    began = time.monotonic()
    assert start_run(job, shards_of([str(tmp_path / "{0000..0999}.tar")])) == []
    assert time.monotonic() - began < 5
