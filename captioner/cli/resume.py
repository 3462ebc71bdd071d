"""``FILE.partial``: the finished results of a run with ``-o FILE``, so that a stopped run can resume."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from captioner.cli.output import partial_file
from captioner.data.records import parse_json
from captioner.errors import DataError, ImageError, UsageError, counted, warn
from captioner.files import RESULTS, Kind, check_output, is_stream, place
from captioner.predictors.base import Caption, Captioner, Result, Results

if TYPE_CHECKING:
    from captioner.features.spec import Store

FORMAT, VERSION = "captioner-partial-results", 1
PARTIAL = Kind("the unfinished results of an earlier run", rf'\{{"format": "{FORMAT}", '.encode())
LONGEST = 2**24
"""Most bytes of a line; a damaged file could be one endless line."""

Mark = tuple[str, int, int]
"""Path, size and modification time (ns) of an image file, or the id of a feature and zeros."""


def check_results_output(output: Path, inputs: Iterable[str | Path | None]) -> None:
    """``check_output`` for ``-o output``, and for the file beside it with the unfinished results."""
    inputs = list(inputs)
    check_output("-o", output, RESULTS, inputs)
    if is_stream(output):
        return
    path = partial_file(output)
    check_output("-o", path, PARTIAL, [*inputs, output])
    if is_stream(path):
        raise UsageError(f"-o {output}: unfinished results go to {path}, which is not a file; choose another name")


class PartialResults:
    """The finished results of the results file ``output``, kept on disk from one run to the next, until ``remove``.

    JSON lines: a header with everything that affects a caption (the model's digest, the given decoding options, the
    feature stores), and a line for each result. Results under another header are not reused. If ``output`` is None or a
    stream, nothing is kept.
    """

    def __init__(
        self, output: Path | None, captioner: Captioner, decoding: Mapping[str, Any], stores: Sequence[Store] = ()
    ) -> None:
        self.path = None if output is None or is_stream(output) else partial_file(output)
        self.count = 0
        """Number of results in the file."""
        self._of_files = not stores
        self._kept: dict[Mark | None, tuple[Caption, ...]] = {}
        self._end = 0  # end of the intact lines; the rest is cut off
        self._stream: BinaryIO | None = None
        if self.path is not None:
            decisive = {
                "format": FORMAT,
                "version": VERSION,
                "model": captioner.digest,
                "decoding": decoding,
                "stores": [[one.spec.digest, one.weights_digest, *(_status(one.path) or ())] for one in stores],
            }
            self._header = json.dumps(decisive).encode() + b"\n"
            self._read(self.path)

    def __enter__(self) -> PartialResults:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._stream is not None:
            with suppress(OSError):  # each line was flushed
                self._stream.close()
        if kind is not None and self.count:
            warn(f"the captions so far are in {self.path}; run the same command again to resume")

    def resume(self, items: Iterable[Any], run: Callable[[Iterator[Any]], Results]) -> Results:
        """Yield the result of each of ``items``, in order: a kept one, or one from ``run``, which is recorded first."""
        return run(iter(items)) if self.path is None else self._resume(items, run)

    def remove(self) -> None:
        """Remove the file, once the results have been written."""
        if self.path is not None:
            if self._stream is not None:
                self._stream.close()  # Windows removes no open file
            self.path.unlink(missing_ok=True)
            self.count = 0

    def _resume(self, items: Iterable[Any], run: Callable[[Iterator[Any]], Results]) -> Results:
        waiting: deque[tuple[Any, Mark | None, tuple[Caption, ...]]] = deque()

        def pending() -> Iterator[Any]:
            for item in items:
                mark = self._mark(item)
                waiting.append((item, mark, self._kept.get(mark, ())))
                if mark not in self._kept:
                    yield item

        with closing(run(pending())) as results:
            for result in results:
                while waiting[0][2]:
                    item, _, captions = waiting.popleft()
                    yield Result(item, captions)
                mark = waiting.popleft()[1]
                if mark is not None and result.error is None:
                    self._write(mark, result.captions)
                yield result
        for item, _, captions in waiting:
            yield Result(item, captions)

    def _mark(self, item: Any) -> Mark | None:
        """The key of the captions of ``item``: the file's state before it is read; None if there is no such file."""
        if isinstance(item, ImageError):
            return None
        status = _status(item) if self._of_files else (0, 0)
        name = place(item) if self._of_files else item
        return (quote(name, errors="surrogatepass"), *status) if status else None

    def _write(self, mark: Mark, captions: Sequence[Caption]) -> None:
        assert self.path is not None
        image, size, changed = mark
        texts = [[one.text, one.log_prob] for one in captions]
        line = json.dumps({"image": image, "size": size, "mtime_ns": changed, "captions": texts})
        try:
            if self._stream is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._stream = open(self.path, "ab", opener=_private)  # noqa: SIM115  # __exit__ closes it
                self._stream.truncate(self._end)
                self._stream.write(b"" if self._end else self._header)
            self._stream.write(line.encode() + b"\n")
            self._stream.flush()
        except OSError as error:
            error.filename = str(self.path)
            raise
        self.count += 1

    def _read(self, path: Path) -> None:
        """Reuse the results of an earlier run, if the file's header equals this run's."""
        if not path.exists() or not path.stat().st_size:
            return
        damaged = 0
        with path.open("rb") as stream:
            if stream.readline(len(self._header)) != self._header:
                warn(f"{path} belongs to a run with another model, options or features and will be replaced")
                return
            self._end = stream.tell()
            while (line := stream.readline(LONGEST)).endswith(b"\n") or len(line) == LONGEST:
                self._end = stream.tell()
                try:
                    mark, captions = _parse(line)
                    self._kept[mark] = captions
                except (DataError, UnicodeDecodeError):
                    damaged += 1
        self.count = len(self._kept)
        if self.count:
            warn(f"resuming with {counted(self.count, 'caption')} of a stopped run ({path})")
        if damaged:
            warn(f"{path}: ignored {counted(damaged, 'damaged line')}")


def _parse(line: bytes) -> tuple[Mark, tuple[Caption, ...]]:
    """Parse a line that ``_write`` wrote; raises ``DataError`` or ``UnicodeDecodeError`` for any other."""
    match parse_json(line.decode(), "a line"):
        case {"image": str(image), "size": int(size), "mtime_ns": int(changed), "captions": [_, *_] as captions}:
            return (image, size, changed), tuple(_parse_caption(one) for one in captions)
    raise DataError("not a result")


def _parse_caption(value: Any) -> Caption:
    match value:
        case [str(text), float(log_prob)] if math.isfinite(log_prob):
            return Caption(text, log_prob)
        case [str(text), None]:
            return Caption(text, None)
    raise DataError("not a caption")


def _status(path: str | Path) -> tuple[int, int] | None:
    """Size and modification time (ns) of a file; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # the final results file may be private
