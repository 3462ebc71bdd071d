"""A fast work over rows, tars to try it on, and what its output should be."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captioner.scale.job import Job
from captioner.scale.outputs import Fields
from captioner.scale.rows import Row
from captioner.scale.shards import Shard


class Toy:
    """The length of each image's bytes; those that begin with BAD fail, and other words do what they say."""

    columns = {"size": "int64"}  # noqa: RUF012

    def __init__(self, delay: float = 0.0, **settings: Any) -> None:
        self._delay, self._settings = delay, settings

    def settings(self) -> dict[str, Any]:
        return self._settings

    def __call__(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Sequence[Fields], str]]:
        for row in rows:
            time.sleep(self._delay)
            if row.data == b"DIE with a file":
                tempfile.mkstemp()
            if row.data.startswith(b"DIE"):
                os.kill(os.getpid(), signal.SIGKILL)
            if row.data.startswith(b"ONCE"):  # dies the first time
                mark = Path(row.data[4:].decode())
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            if row.data.startswith(b"RAISE"):
                raise RuntimeError("a fault in a decoder")
            bad = "a bad image" if row.data.startswith(b"BAD") else ""
            yield row, [{"size": len(row.data)}], row.error or bad


def make_job(
    output: Path | str, output_format: str = "jsonl", retries: int = 2, delay: float = 0.0, **settings: Any
) -> Job:
    options = {"delay": delay, **settings}
    return Job("toy", options, settings, str(output), output_format, retries, {"toy": "tests.scale.toy:Toy"})


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_tars(folder: Path, count: int, rows: int = 4) -> list[str]:
    """Tars 000.tar, 001.tar, ... of images with other lengths each."""
    return [
        str(write_tar(folder / f"{n:03}.tar", {f"{n:03}/{row}.png": b"x" * (10 * n + row + 1) for row in range(rows)}))
        for n in range(count)
    ]


def shards_of(sources: Sequence[str]) -> list[Shard]:
    from captioner.scale.shards import make_plan

    return make_plan(sources).shards


def records(folder: Path) -> dict[str, bytes]:
    """The files of records in a folder, and of what failed."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.jsonl"))}
