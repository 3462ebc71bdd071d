"""Process one shard into its files, and describe a run so that every process can load it.

Files of shard 00042 in the output folder: ``00042.jsonl`` or ``.parquet`` (the records), ``00042.failed.jsonl`` (rows
without a result, if any), and last ``00042.json`` (statistics: the shard is done). ``00042.running`` exists while a
process works on the shard, ``00042.error.json`` if the shard itself failed.
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
"""Seconds between two updates of ``00042.running``."""
LARGEST = 1e15
"""Largest number that is accepted in the files of a run."""
READERS = 16
"""Statistics files that are read at a time: an object store is slow to answer, but answers many requests at once."""
COLUMNS = {"key": "string", "shard": "string"}
"""Columns before those of the work; ``error`` comes after them."""
WORKS = {
    "caption": "captioner.scale.captions:Captions",
    "extract": "captioner.scale.features:Features",
}


class Work(Protocol):
    """A function from rows to results, such as captions, with a model that is loaded once."""

    columns: Mapping[str, str]
    """The fields of a result, with pyarrow's names of their types."""

    def settings(self) -> dict[str, Any]:
        """Everything that affects the results: the model's digest and the options, as JSON values."""
        ...

    def __call__(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Sequence[Fields], str]]:
        """Yield in order each row without its bytes, its results (one record or more), and an error or ''."""
        ...


@dataclass(frozen=True)
class Job:
    """A run, ready to be sent to other processes."""

    work: str
    """An entry of ``WORKS``."""
    options: Mapping[str, Any]
    """Arguments of the work's constructor."""
    settings: Mapping[str, Any]
    """The work's ``settings()``."""
    output: str
    """The output folder."""
    output_format: str = "jsonl"
    retries: int = 2
    """How often a failed shard is tried again."""
    works: Mapping[str, str] = field(default_factory=lambda: WORKS)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that affects the output."""
        decisive = [VERSION, self.work, self.settings, self.output_format]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def open(self) -> Work:
        """Load the model."""
        work: Work = resolve(self.works, self.work, "work")(**self.options)
        return work


@dataclass(frozen=True)
class Outcome:
    """The result of an attempt at a shard: its statistics, or an error."""

    shard: Shard
    stats: Mapping[str, Any] | None = None
    error: str = ""


def start_run(job: Job, shards: Sequence[Shard]) -> list[Shard]:
    """Record the run in its folder, and return the shards that are not done.

    Raises ``UsageError`` if the folder holds shards of other settings or sources.
    """
    folder = Folder(job.output)
    folder.remove_unfinished(f"{RUN}.", age=HEARTBEAT)  # other ranks may be starting too
    names = folder.names()
    if RUN in names:
        check_same(read_record(folder, RUN), job.digest, f"{job.output}/{RUN}")
    planned = {f"{shard.name}.json" for shard in shards}
    other = min((n for n in names - planned if n.endswith(".json") and n[:-5].isdecimal()), default=None)
    if other is not None:
        read_record(folder, other)  # says so if it is somebody else's file
        raise UsageError(
            f"{job.output}/{other} is of a run with more or other sources, and its results would stay among these; "
            "give all sources, or choose another folder with -o"
        )
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
    folder.remove(left)  # left by a process that was killed between its last two steps
    return [shard for shard in shards if shard.name not in finished]


def check_same(found: Mapping[str, Any], digest: str, name: str) -> None:
    """Raise ``UsageError`` unless ``found`` was written with the settings and sources of ``digest``."""
    if found.get("digest") != digest:
        raise UsageError(
            f"{name} is of a run with another model, other options or other sources; choose another folder with -o"
        )


def attempt(shard: Shard, job: Job, work: Work) -> Outcome:
    """Call ``run_shard``; an exception becomes the outcome's error."""
    try:
        return Outcome(shard, run_shard(shard, job, work))
    except (CaptionerError, OSError) as error:
        return Outcome(shard, error=str(error))
    except Exception as error:  # a bad shard or a bug in a decoder must not stop the run
        return Outcome(shard, error=f"{type(error).__name__}: {error}")


def run_shard(shard: Shard, job: Job, work: Work) -> dict[str, Any]:
    """Write the shard's files and return the statistics, which are written last.

    Running it again gives the same records. Raises ``DataError`` if the shard cannot be read.
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
    """Record that a shard failed; the next run tries it again."""
    folder = Folder(job.output)
    record = {"format": FORMAT, "version": VERSION, "shard": outcome.shard.name, "source": outcome.shard.source}
    text = json.dumps(record | {"error": outcome.error, "attempts": attempts}) + "\n"
    folder.write(f"{outcome.shard.name}.error.json", text)
    folder.remove([f"{outcome.shard.name}.running"])


class _Counter:
    """Counts the rows of a shard, and updates its ``.running`` file."""

    def __init__(self, folder: Folder, name: str, began: float) -> None:
        self.images = 0
        self.failures: list[dict[str, str]] = []
        self._folder, self._name, self._began, self._next = folder, name, began, 0.0

    def count(self, results: Iterable[tuple[Row, Sequence[Fields], str]]) -> Iterator[Fields]:
        """Yield the records of the results; a failed row has one record, with its error."""
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
    """Read a JSON file of this package that has these fields; raises ``DataError`` for any other file."""
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
    """Whether a JSON value is a string, if ``kind`` is str, or else a number of this kind from 0 to ``LARGEST``."""
    if kind is str:
        return isinstance(value, str)
    number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return number and 0 <= value <= LARGEST
