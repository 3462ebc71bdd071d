"""The output of captioning commands: text or JSON on stdout, errors on stderr, COCO results in a file."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.errors import ImageError, counted, print_error, printable
from captioner.files import Kind, check_output, write_text

if TYPE_CHECKING:
    from captioner.predictors.base import Result

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write COCO results to this file instead of printing captions. The same command resumes a stopped run.",
    ),
]


FAILURES = Kind("a list of what failed", rb"[^\t\n]+\t[^\t\n]+\n")


@dataclass
class Writer:
    """Prints results one by one and counts them."""

    model: str
    """The model's name, for JSON."""
    as_json: bool = False
    """Print one JSON object per line instead of text."""
    output: Path | None = None
    """File of COCO results; then no text is printed."""
    alone: bool = False
    """Print captions without the image's name, since there is only one image."""
    as_csv: bool = False
    """Print CSV rows of image, caption, log_prob and model with a header, instead of text."""
    hidden: bool = False
    """Print no captions."""
    what: str = "image"
    """Kind of the captioned items; a key of the JSON objects."""
    written: int = 0
    """Number of results with captions."""
    failed: int = 0
    """Number of results with an error."""
    failures: list[ImageError] = field(default_factory=list)

    def write(self, results: Iterable[Result]) -> Iterator[Result]:
        """Print each result; yields those with captions."""
        for result in results:
            if result.error is not None:
                print_error(f"error: {result.error}")
                self.failed += 1
                self.failures.append(result.error)
                continue
            if self.as_csv and not self.hidden:
                self._print_rows(result)
            elif (self.as_json or self.output is None) and not self.hidden:
                self._print(result)
            self.written += 1
            yield result

    def _print(self, result: Result) -> None:
        for caption in result.captions:
            if self.as_json:
                record = {"caption": caption.text, "log_prob": caption.log_prob, "model": self.model}
                print(json.dumps(self._source(result) | record), flush=True)
            elif self.alone:
                print(printable(caption.text), flush=True)
            else:
                print(f"{self._label(result)}\t{printable(caption.text)}", flush=True)

    def _print_rows(self, result: Result) -> None:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        if not self.written:
            rows.writerow(("image", "caption", "log_prob", "model"))
        for one in result.captions:
            rows.writerow((result.image, one.text, "" if one.log_prob is None else one.log_prob, self.model))
        sys.stdout.flush()

    def _source(self, result: Result) -> dict[str, Any]:
        if result.interval is None:
            return {self.what: str(result.image)}
        start, end = result.interval
        return {"video": str(result.image), "start": start, "end": end}

    def _label(self, result: Result) -> str:
        if result.interval is None:
            return printable(str(result.image))
        start, end = result.interval
        return f"{start:.3f}\t{end:.3f}"


def write_coco_results(path: Path, captions: Iterable[tuple[int | str, str]], what: str) -> None:
    """Write (image id, caption) pairs as COCO results, and their number to stderr; ``what`` is the singular noun."""
    entries = [{"image_id": image_id, "caption": text} for image_id, text in captions]
    write_text(path, json.dumps(entries, indent=0) + "\n")
    print_error(f"{counted(len(entries), what)} written to {path}")


def partial_file(output: Path) -> Path:
    """The file that holds the results of an unfinished run with ``-o output``."""
    return output.with_name(f"{output.name}.partial")


@contextmanager
def failures_file(path: Path | None, writer: Writer) -> Iterator[None]:
    """When the block ends, even with an error, write a list of what failed: path, tab, reason."""
    if path is not None:
        results = [] if writer.output is None else [writer.output, partial_file(writer.output)]
        check_output("--failed", path, FAILURES, results)
    try:
        yield
    finally:
        if path is not None:
            lines = [f"{printable(str(one.path))}\t{printable(one.reason)}\n" for one in writer.failures]
            write_text(path, "".join(lines))


def accept_any_file_name() -> None:
    """Let stdin and stdout carry file names that are not valid text: unchanged if possible, else escaped."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
