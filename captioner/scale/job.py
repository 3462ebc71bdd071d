"""The pure function from a shard to its files, and the record of a run that every process gets.

Files of shard 00042 in the output folder: ``00042.jsonl`` or ``.parquet`` (the records), ``00042.failed.jsonl`` (rows
without a result, if any), and last ``00042.json`` (statistics: the shard is done). ``00042.running`` is there while
somebody works on it, ``00042.error.json`` where the shard itself failed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from captioner.data.records import parse_json
from captioner.errors import CaptionerError, DataError, UsageError, shorten
from captioner.features.shards import RUN
from captioner.files import sha256
from captioner.places import Folder
from captioner.registry import resolve
from captioner.scale.outputs import Fields, open_records
from captioner.scale.rows import Row, rows_of
from captioner.scale.shards import Shard

FORMAT, VERSION = "captioner-shard", 1
HEARTBEAT = 15.0
"""Seconds between two signs of life of a shard."""
LARGEST = 1e15
"""Of the numbers in the files of a run."""
READERS = 16
"""Statistics that are read at a time: an object store answers slowly, but many at once."""
COLUMNS = {"key": "string", "shard": "string"}
"""Columns in front of those of the work; ``error`` follows them."""
WORKS = {
    "caption": "captioner.scale.captions:Captions",
    "extract": "captioner.scale.features:Features",
}


class Work(Protocol):
    """What is done with the rows of a shard, with a model that is loaded once."""

    columns: Mapping[str, str]
    """Names of what it finds for a row, with pyarrow's names of their types."""

    def settings(self) -> dict[str, Any]:
        """All that decides the result: the model's digest and its options; ready for JSON."""
        ...

    def __call__(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Sequence[Fields], str]]:
        """For each row, in order: the row without its bytes, what was found (one record or several), or an error."""
        ...


@dataclass(frozen=True)
class Job:
    """A run, ready to be sent to other processes."""

    work: str
    """An entry of ``WORKS``."""
    options: Mapping[str, Any]
    """What the work is made with."""
    settings: Mapping[str, Any]
    """What decides the results, by the work itself."""
    output: str
    """The output folder."""
    output_format: str = "jsonl"
    retries: int = 2
    """How often a shard that failed is tried again."""
    works: Mapping[str, str] = field(default_factory=lambda: WORKS)

    @property
    def digest(self) -> str:
        """SHA-256 of the settings."""
        decisive = [VERSION, self.work, self.settings, self.output_format]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def open(self) -> Work:
        """Load the model."""
        work: Work = resolve(self.works, self.work, "work")(**self.options)
        return work


@dataclass(frozen=True)
class Outcome:
    """What has come of a shard, or of an attempt at it."""

    shard: Shard
    stats: Mapping[str, Any] | None = None
    error: str = ""


def start_run(job: Job, shards: Sequence[Shard]) -> list[Shard]:
    """Write down the run, and return the shards that are not done.

    Raises ``UsageError`` where the folder holds shards of other settings or sources.
    """
    folder = Folder(job.output)
    folder.remove_unfinished(f"{RUN}.", age=HEARTBEAT)  # other ranks may start as well
    names = folder.names()
    if RUN in names:
        check_same(read_record(folder, RUN), job.digest, f"{job.output}/{RUN}")
    record = {"format": FORMAT, "version": VERSION, "digest": job.digest, "work": job.work, "shards": len(shards)}
    text = json.dumps(record | {"settings": job.settings, "output_format": job.output_format}, indent=1) + "\n"
    if RUN not in names or folder.read(RUN).decode() != text:
        folder.write(RUN, text)
    done = [shard for shard in shards if f"{shard.name}.json" in names]
    with ThreadPoolExecutor(READERS) as pool:
        for shard, stats in zip(done, pool.map(lambda one: read_record(folder, f"{one.name}.json"), done), strict=True):
            check_same(stats, shard.digest(job.digest), f"{job.output}/{shard.name}.json")
    finished = {shard.name for shard in done}
    left = [f"{name}{end}" for name in finished for end in (".running", ".error.json") if f"{name}{end}" in names]
    folder.remove(left)  # of a process that was killed between its last two steps
    return [shard for shard in shards if shard.name not in finished]


def check_same(found: Mapping[str, Any], digest: str, name: str) -> None:
    """Raise ``UsageError`` unless a file was written with the settings and sources of ``digest``."""
    if found.get("digest") != digest:
        raise UsageError(
            f"{name} is of a run with another model, other options or other sources; choose another folder with -o"
        )


def attempt(shard: Shard, job: Job, work: Work) -> Outcome:
    """``run_shard``; whatever goes wrong is part of the outcome."""
    try:
        return Outcome(shard, run_shard(shard, job, work))
    except (CaptionerError, OSError) as error:
        return Outcome(shard, error=str(error))
    except Exception as error:  # a bad shard, or a fault in a decoder, never stops the run
        return Outcome(shard, error=f"{type(error).__name__}: {error}")


def run_shard(shard: Shard, job: Job, work: Work) -> dict[str, Any]:
    """Write the shard's files; returns the statistics, which are written last.

    Running it again gives the same records. Raises ``DataError`` where the shard cannot be read.
    """
    folder, began = Folder(job.output), time.time()
    digest, name = shard.digest(job.digest), shard.name
    folder.remove_unfinished(f"{name}.")
    output = f"{name}.{job.output_format}"
    columns = COLUMNS | dict(work.columns) | {"error": "string"}
    counter = _Counter(folder, name, began)
    with folder.writing(output) as path:
        with open_records(path, job.output_format, columns, digest) as write:
            for record in counter.count(work(rows_of(shard))):
                write({**dict.fromkeys(columns), "shard": name, **record})
        checksum = sha256(path)
    if counter.failures:
        folder.write(f"{name}.failed.jsonl", "".join(json.dumps(one) + "\n" for one in counter.failures))
    stats = {
        "format": FORMAT,
        "version": VERSION,
        "shard": name,
        "source": shard.source,
        "digest": digest,
        "images": counter.images,
        "failed": len(counter.failures),
        "output": output,
        "sha256": checksum,
        "began": began,
        "seconds": time.time() - began,
        "images_per_second": counter.images / (time.time() - began),
        "host": platform.node(),
    }
    folder.write(f"{name}.json", json.dumps(stats, indent=1) + "\n")
    folder.remove([f"{name}.running", f"{name}.error.json", *([] if counter.failures else [f"{name}.failed.jsonl"])])
    return stats


def give_up(outcome: Outcome, job: Job, attempts: int) -> None:
    """Write down that a shard failed; the next run tries it again."""
    folder = Folder(job.output)
    record = {"format": FORMAT, "version": VERSION, "shard": outcome.shard.name, "source": outcome.shard.source}
    text = json.dumps(record | {"error": outcome.error, "attempts": attempts}) + "\n"
    folder.write(f"{outcome.shard.name}.error.json", text)
    folder.remove([f"{outcome.shard.name}.running"])


class _Counter:
    """Counts the rows of a shard, and writes signs of life."""

    def __init__(self, folder: Folder, name: str, began: float) -> None:
        self.images = 0
        self.failures: list[dict[str, str]] = []
        self._folder, self._name, self._began, self._next = folder, name, began, 0.0

    def count(self, results: Iterable[tuple[Row, Sequence[Fields], str]]) -> Iterator[Fields]:
        """The records of the results; a failed row has one with an error."""
        self._sign()
        for row, records, error in results:
            if error:
                self.failures.append({"key": row.key, "error": error})
                yield {"key": row.key, "error": error}
            else:
                self.images += 1
                yield from ({"key": row.key} | dict(record) for record in records)
            if time.monotonic() >= self._next:
                self._sign()

    def _sign(self) -> None:
        self._next = time.monotonic() + HEARTBEAT
        sign = {"format": FORMAT, "version": VERSION, "shard": self._name, "images": self.images, "began": self._began}
        sign |= {"at": time.time(), "host": platform.node(), "pid": os.getpid()}
        self._folder.write(f"{self._name}.running", json.dumps(sign) + "\n")


def read_record(folder: Folder, name: str, fields: Mapping[str, type] = MappingProxyType({})) -> dict[str, Any]:
    """A JSON file of this package with these fields; ``DataError`` for anything else."""
    where = f"{folder.name}/{name}"
    try:
        found = parse_json(folder.read(name).decode(), where)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{where} is not a file of captioner's shards; choose another folder with -o")
    wrong = next((name for name, kind in fields.items() if not _fits(found.get(name), kind)), None)
    if wrong is not None:
        raise DataError(f"{where}: damaged ({wrong} is {shorten(found.get(wrong))}); remove the file")
    return found


def _fits(value: Any, kind: type) -> bool:
    """Whether a value of JSON is a text, or a number from 0 to ``LARGEST`` of this kind."""
    if kind is str:
        return isinstance(value, str)
    number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return number and 0 <= value <= LARGEST
