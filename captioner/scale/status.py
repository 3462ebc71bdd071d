"""The progress of a run, read only from the files in its output folder."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from captioner.errors import UsageError
from captioner.features.shards import RUN
from captioner.places import Folder
from captioner.scale.job import HEARTBEAT, READERS, read_record

SILENCE = 4 * HEARTBEAT
"""A shard counts as stopped when its ``.running`` file is older than this, in seconds."""

STATS: Mapping[str, type] = {"shard": str, "images": int, "failed": int, "seconds": float}
SIGN: Mapping[str, type] = {"shard": str, "at": float, "began": float}
FAILURE: Mapping[str, type] = {"shard": str, "error": str}
"""The fields that are read from a shard's files."""


@dataclass(frozen=True)
class Status:
    """Progress of a run, in shards and images."""

    shards: int
    done: int
    running: int
    failed: Mapping[str, str]
    """The failed shards, with their errors."""
    images: int
    """Images with a result, in the shards that are done."""
    failed_images: int
    images_per_second: float
    """Speed of all running shards together, estimated from those that are done; of one shard if none runs."""
    seconds_left: float | None
    """None if no shard is done or none runs."""

    @property
    def waiting(self) -> int:
        """Shards that no process works on."""
        return max(0, self.shards - self.done - self.running - len(self.failed))


def read_status(output: str) -> Status:
    """The status of the run in the folder ``output``; raises ``UsageError`` if there is none."""
    folder = Folder(output)
    names = folder.names()
    if RUN not in names:
        raise UsageError(f"{output}: no run in this folder; it is what captioner caption ... --engine wrote with -o")
    done = {name[:-5] for name in names if name.endswith(".json") and name[:-5].isdecimal()}
    stats = _read_all(folder, [f"{name}.json" for name in sorted(done)], STATS)
    signs = [name for name in sorted(names) if name.endswith(".running") and name[:-8] not in done]
    live = [one for one in _read_all(folder, signs, SIGN) if time.time() - one["at"] < SILENCE]
    errors = [name for name in sorted(names) if name.endswith(".error.json") and name[:-11] not in done]
    failed = {one["shard"]: one["error"] for one in _read_all(folder, errors, FAILURE)}
    failed = {name: error for name, error in failed.items() if name not in {one["shard"] for one in live}}
    return _count(read_record(folder, RUN, {"shards": int})["shards"], stats, live, failed)


def _count(
    shards: int, stats: Sequence[Mapping[str, Any]], live: Sequence[Mapping[str, Any]], failed: Mapping[str, str]
) -> Status:
    images = sum(one["images"] for one in stats)
    failed_images = sum(one["failed"] for one in stats)
    seconds = math.fsum(one["seconds"] for one in stats)
    rate = images / seconds if seconds else 0.0
    left = shards - len(stats) - len(failed)
    rest = None
    if stats and live:  # a shard's mean time, less the time that the running ones have had
        spent = math.fsum(one["at"] - one["began"] for one in live)
        rest = max(0.0, left * seconds / len(stats) - spent) / len(live)
    return Status(
        shards,
        len(stats),
        len(live),
        failed,
        images,
        failed_images,
        rate * max(1, len(live)),
        0.0 if not left else rest,
    )


def _read_all(folder: Folder, names: Sequence[str], fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The records; files that another process has removed meanwhile are left out."""

    def read(name: str) -> list[dict[str, Any]]:
        try:
            return [read_record(folder, name, fields)]
        except FileNotFoundError:
            return []

    with ThreadPoolExecutor(READERS) as pool:
        return [one for found in pool.map(read, names) for one in found]
