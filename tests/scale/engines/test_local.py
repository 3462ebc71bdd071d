from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from captioner.errors import CaptionerError
from captioner.scale.engines.local import run
from captioner.scale.job import Job, Outcome, start_run
from tests.scale.toy import make_job, records, shards_of, write_tar, write_tars


def test_any_number_of_workers_gives_the_same_files(tmp_path: Path) -> None:
    """Would catch shards that are lost or repeated between processes, and threads that the driver keeps limited."""
    shards = shards_of(write_tars(tmp_path, 5))
    found = []
    before = dict(os.environ)
    for workers in (1, 3):
        job, done = make_job(tmp_path / str(workers)), list[Outcome]()
        run(job, start_run(job, shards), workers, done.append)
        assert sorted(one.shard.name for one in done if one.stats) == [shard.name for shard in shards]
        found.append(records(tmp_path / str(workers)))
    assert found[0] == found[1] and len(found[0]) == 5
    assert dict(os.environ) == before


def test_a_worker_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a run that hangs or ends when memory runs out, a shard or a file that stays, and endless retries."""
    (tmp_path / "spool").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spool"))  # of its processes too
    monkeypatch.setattr(tempfile, "tempdir", None)
    write_tars(tmp_path, 3)
    write_tar(tmp_path / "once.tar", {"1.png": b"ONCE" + str(tmp_path / "mark").encode(), "2.png": b"x"})
    write_tar(tmp_path / "die.tar", {"1.png": b"DIE with a file"})
    write_tar(tmp_path / "raise.tar", {"1.png": b"RAISE"})
    names = ["die", "once", "raise", "000", "001", "002"]
    shards = shards_of([str(tmp_path / f"{name}.tar") for name in names])
    job, done = make_job(tmp_path / "out", retries=1), list[Outcome]()
    run(job, shards, 2, done.append)
    errors = {Path(one.shard.source).stem: one.error for one in done}
    assert sorted(errors) == sorted(names)
    assert "SIGKILL" in errors.pop("die") and "RuntimeError" in errors.pop("raise")
    assert not any(errors.values())
    left = sorted(path.name for path in (tmp_path / "out").glob("*.error.json"))
    assert left == ["00000.error.json", "00002.error.json"] and not list((tmp_path / "out").glob("*.running"))
    assert not list((tmp_path / "spool").iterdir())


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path) -> None:
    """Would catch a traceback for each shard instead of one line."""
    options = {"model": str(tmp_path / "none.safetensors"), "device": "cpu", "prompt": None, "options": {}}
    job = Job("caption", options, {}, str(tmp_path / "out"))
    with pytest.raises(CaptionerError, match="no such model"):
        run(job, shards_of(write_tars(tmp_path, 2)), 1, list[Outcome]().append)
