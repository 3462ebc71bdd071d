"""``captioner caption`` on shards, and ``captioner status``, as people call them."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captioner.features.label_predictions import open_store
from captioner.features.store import FeatureStore
from tests import tiny
from tests.conftest import CHECKOUT, Run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: 11 images in ``photos``, six of them photographs, one damaged; also as tars and a list."""
    monkeypatch.chdir(tmp_path)
    paths = tiny.save_images(Path("photos"), 11)
    for path, photo in zip(paths[5:], sorted((CHECKOUT / "examples").glob("*.jpg")), strict=False):
        shutil.copyfile(photo, path)  # the content tells the format
    paths[4].write_bytes(paths[4].read_bytes()[:100])
    for number in range(3):
        with tarfile.open(f"{number:02}.tar", "w") as tar:
            for path in paths[number * 4 : number * 4 + 4]:
                tar.add(path)
    with open("list.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["path"], *[[path] for path in paths]])
    return tmp_path


def captions(output: Path) -> dict[str, tuple[str, float]]:
    rows = [json.loads(line) for path in sorted(output.glob("0*.jsonl")) for line in path.read_text().splitlines()]
    kept = [row for row in rows if "failed" not in row and row.get("caption")]
    assert len({row["key"] for row in kept}) == len(kept)
    return {row["key"]: (row["caption"], pytest.approx(row["log_prob"], abs=1e-3)) for row in kept}


def test_shards_give_the_captions_of_one_plain_command(folder: Path, cli: Run) -> None:
    """Would catch images that are opened in another way, lost, repeated or under another's name."""
    status, lines, _ = cli("caption", "--json", "photos")
    rows = [json.loads(line) for line in lines]
    wanted = {row["image"]: (row["caption"], row["log_prob"]) for row in rows}
    assert status == 1 and len(wanted) == 10
    sources = (
        ["{00..02}.tar"],
        ["list.csv", "--shard-size", "4"],
        ["photos", "--shard-size", "3", "--engine", "local"],
    )
    for number, source in enumerate(sources):
        output = Path(f"out{number}")
        workers = 2 if number == 0 else 1
        status, _, errors = cli("caption", *source, "-o", output, "--workers", workers)
        assert status == 1 and "10 images done, 1 failed" in errors[-1]
        assert captions(output) == wanted
        (failed,) = output.glob("*.failed.jsonl")
        assert json.loads(failed.read_text())["key"] == "photos/04.png"
        status, lines, _ = cli("status", output, "--json")
        found = json.loads(lines[0])
        assert status == 0 and found["done"] == found["shards"] and found["seconds_left"] == 0
        status, _, errors = cli("caption", *source, "-o", output, "--workers", workers)
        assert status == 0 and "0 shards done" in errors[-1]
    assert cli("caption", "{00..02}.tar", "-o", "out0", "--beam-size", 1)[0] == 2
    assert "keys      0 in several shards" in cli("status", "out0", "--keys")[1]


def test_parquet_in_and_out(folder: Path, cli: Run) -> None:
    """Would catch bytes in a table that give other captions than their files."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths = sorted(Path("photos").glob("*.png"))
    table = pa.table({"key": [str(path) for path in paths], "image": [path.read_bytes() for path in paths]})
    parquet.write_table(table, "list.parquet")
    cli("caption", "photos", "--engine", "local", "-o", "plain")
    options = ("--column", "image", "--output-format", "parquet", "--shard-size", 6)
    status, _, _ = cli("caption", "list.parquet", "-o", "out", *options)
    rows = [row for path in sorted(Path("out").glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    found = {row["key"]: (row["caption"], row["log_prob"]) for row in rows if row["error"] is None}
    assert status == 1 and found == captions(Path("plain"))


@pytest.mark.parametrize("command", ["caption", "extract"])
def test_dry_run_shows_shards_and_writes_nothing(folder: Path, cli: Run, command: str) -> None:
    """Would catch a dry run that leaves files, or has no estimate."""
    if command == "extract":
        pytest.importorskip("pyarrow")
        status, _, errors = cli("extract", "photos", "-o", "out.h5", "--dry-run")
        assert status == 2 and "shards" in errors[-1]
    before = sorted(folder.rglob("*"))
    status, lines, errors = cli(command, "{00..02}.tar", "list.csv", "-o", "out", "--dry-run")
    assert status == 0 and sorted(folder.rglob("*")) == before
    assert [line.split("\t")[:3] for line in lines] == [
        *[[f"{n:05}", "tar", f"{n:02}.tar"] for n in range(3)],
        ["00003", "table", "list.csv"],
    ]
    assert "images/s" in errors[-1] and "Nothing was written" in errors[-1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["00.tar"], "name it with -o"),
        (["00.tar", "-o", "list.csv"], "not a folder"),
        (["00.tar", "-o", "out", "--json"], "only"),
        (["00.tar", "-o", "out", "--sidecar", ".txt"], "only"),
        (["00.tar", "-o", "out", "--engine", "spark"], "local, ray, slurm, torchrun"),
        (["00.tar", "-o", "out", "--ray-address", "127.0.0.1:1"], "--engine ray"),
        (["00.tar", "-o", "out", "--engine", "slurm"], "sbatch"),
        (["00.tar", "-o", "out", "--output-format", "xml"], "jsonl, parquet"),
        (["none.tar", "-o", "out"], "no images, tars or tables"),
        (["-", "-o", "out", "--engine", "local"], "stdin"),
    ],
)
def test_wrong_usage_is_one_line(folder: Path, cli: Run, arguments: list[str], reason: str) -> None:
    """Would catch options that are silently ignored."""
    status, _, errors = cli("caption", *arguments)
    assert status == 2 and reason in errors[-1]
    assert list(folder.glob("out/0*")) == []


def test_a_bad_shard_does_not_stop_the_others(folder: Path, cli: Run) -> None:
    """Would catch a damaged tar that costs the captions of all others."""
    Path("01.tar").write_bytes(Path("01.tar").read_bytes()[:700])
    status, _, errors = cli("caption", "{00..03}.tar", "-o", "out", "--max-shard-retries", 0)
    assert status == 1 and "2 shards done, 0 done before, 1 failed" in errors[-1]
    assert any("03.tar: no such file" in line for line in errors)
    assert len(captions(Path("out"))) == 7
    status, lines, _ = cli("status", "out")
    assert status == 1 and lines[0].split() == ["shards", "3"] and lines[-1].startswith("00001: 01.tar")


def test_features_of_shards_are_those_of_one_plain_command(folder: Path, cli: Run) -> None:
    """Would catch images prepared in another way, features under another's key, and a store that others cannot join."""
    pytest.importorskip("pyarrow")
    assert cli("extract", "photos", "-o", "plain.h5", "--workers", 0)[0] == 1
    command = ("extract", "{00..02}.tar", "-o", "features", "--engine", "local", "--workers", 1, "--batch-size", 3)
    status, _, errors = cli(*command)
    assert status == 1 and "10 images done, 1 failed" in errors[-1]
    assert cli(*command)[0] == 0 and cli("extract", "{00..02}.tar", "-o", "features", "--crops", 10)[0] == 2
    status, _, errors = cli("features", "import", "features", "-o", "features.h5")
    assert status == 0 and errors[-1] == "features.h5: 10 features, 1 failed"
    plain, found = FeatureStore("plain.h5"), FeatureStore("features.h5")
    assert found.spec == plain.spec and found.weights_digest == plain.weights_digest
    assert found.ids == [f"photos/{name}" for name in plain.ids] and found.unfinished == ["photos/04.png"]
    np.testing.assert_allclose(found.get(found.ids), plain.get(plain.ids), atol=2e-3)
    assert cli("features", "export", "features.h5", "-o", "back")[2] == ["back: 10 features"]
    assert cli("features", "import", "back", "-o", "again.h5")[0] == 0
    again = FeatureStore("again.h5")
    assert again.ids == found.ids and (again.get(again.ids) == found.get(found.ids)).all()
    assert again.spec == found.spec and again.weights_digest == found.weights_digest
    assert cli("extract", "photos/00.png", "-o", "32.h5", "--dtype", "float32", "--workers", 0)[0] == 0
    assert cli("features", "export", "32.h5", "-o", "back32")[0] == 2 and not Path("back32").exists()
    assert cli("caption", "{00..02}.tar", "-o", "captions")[0] == 1
    assert "no features" in cli("features", "import", "captions", "-o", "x.h5")[2][-1]
    Path("features/00001.parquet").write_bytes(b"PAR1")
    assert "damaged" in cli("features", "import", "features", "-o", "w.h5")[2][-1] and not Path("w.h5").exists()
    Path("features/00001.json").unlink()
    assert "shard 00001 is not done" in cli("features", "import", "features", "-o", "y.h5")[2][-1]
    Path("features/run.json").write_text('{"format": "captioner-shard", "work": "extract", "shards": 0}')
    assert cli("features", "import", "features", "-o", "z.h5")[0] == 1
    assert not Path("x.h5").exists() and not Path("y.h5").exists()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket of an S3 server on this machine, by fsspec."""
    pytest.importorskip("s3fs", reason="needs s3fs")
    servers = pytest.importorskip("moto.server", reason="needs moto's server of S3")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of each request
    server = servers.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()  # connections to the server of another test
    store = fsspec.filesystem("s3")
    store.mkdir("bucket")
    yield store
    store.rm("bucket", recursive=True)
    server.stop()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:datetime.datetime.utcnow:DeprecationWarning")
@pytest.mark.parametrize("engine", ["ray", "local"])
def test_an_s3_server(folder: Path, cli: Run, bucket: Any, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """Would catch object stores that give other captions or features than the plain commands, or forget a run."""
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    if engine == "ray" and find_spec("ray") is None:
        pytest.skip("needs Ray")
    cli("caption", "photos", "--engine", "local", "-o", "plain")
    wanted = captions(Path("plain"))
    bucket.put(sorted(map(str, folder.glob("*.tar"))), "bucket/")
    with bucket.open("bucket/list.parquet", "wb") as stream:
        parquet.write_table(pa.table({"path": sorted(map(str, Path("photos").glob("*.png")))}), stream)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "1")
    commands = {
        "captions": ("caption", "s3://bucket/{00..02}.tar", "--engine", engine, "--workers", 2),
        "slurm": ("caption", "s3://bucket/list.parquet", "--column", "path", "--engine", "slurm"),
        "features": ("extract", "s3://bucket/*.tar", "--engine", "local", "--workers", 1),
    }
    for name, command in commands.items():
        status, _, errors = cli(*command, "-o", f"s3://bucket/{name}/")
        assert status == 1 and "10 images done, 1 failed" in errors[-1]
        status, _, errors = cli(*command, "-o", f"s3://bucket/{name}/")
        assert status == 0 and "0 shards done" in errors[-1]
        assert cli("status", f"s3://bucket/{name}")[0] == 0
        bucket.get(f"bucket/{name}/", name, recursive=True)
    assert captions(Path("captions")) == captions(Path("slurm")) == wanted
    assert cli("features", "import", "s3://bucket/features/", "-o", "features.h5")[0] == 0
    assert cli("extract", "photos", "-o", "plain.h5", "--workers", 0)[0] == 1
    plain, found = FeatureStore("plain.h5"), FeatureStore("features.h5")
    assert found.ids == [f"photos/{name}" for name in plain.ids]
    np.testing.assert_allclose(found.get(found.ids), plain.get(plain.ids), atol=2e-3)
    remote = open_store("s3://bucket/features/")  # as training reads it
    assert (remote.ids, remote.unfinished) == (found.ids, found.unfinished)
    np.testing.assert_array_equal(remote.get(found.ids), found.get(found.ids))


def test_a_store_that_fails_is_one_line(folder: Path, cli: Run, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a bucket that is made by a slip of the pen, and a traceback without credentials."""
    status, _, errors = cli("caption", "00.tar", "-o", "s3://buckte/out")
    assert status == 2 and "buckte does not exist; make it first" in errors[-1] and not bucket.exists("buckte")
    status, _, errors = cli("caption", "s3://buckte/00.tar", "-o", "out")
    assert status == 1 and "cannot be read" in errors[-2]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    bucket.clear_instance_cache()
    for arguments in (
        ("s3://bucket/00.tar", "-o", "out2"),
        ("00.tar", "-o", "s3://bucket/out"),
        ("s3://bucket/*.tar",),
    ):
        status, _, errors = cli("caption", *arguments, *(() if "-o" in arguments else ("-o", "out3")))
        assert status == 1 and any("credentials" in line for line in errors), errors
