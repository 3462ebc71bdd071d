"""The output of commands that caption: lines or JSON on stdout, errors on stderr, COCO results in a file."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.errors import counted, print_error, printable
from captioner.files import write_text

if TYPE_CHECKING:
    from captioner.predictors.base import Result

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write COCO results to this file instead of printing captions. "
        "A run that was stopped goes on where it was.",
    ),
]


@dataclass
class Writer:
    """Prints results one by one and counts them."""

    model: str
    """The model's name, for JSON."""
    as_json: bool = False
    """One JSON object a line instead of text."""
    output: Path | None = None
    """File of COCO results; text is then not printed."""
    alone: bool = False
    """Print captions without the name of their image: there is just one."""
    what: str = "image"
    """What the results are of; a key of the JSON objects."""
    written: int = 0
    """Results with captions."""
    failed: int = 0
    """Results with an error."""

    def write(self, results: Iterable[Result]) -> Iterator[Result]:
        """Print each result; yields those that have captions."""
        for result in results:
            if result.error is not None:
                print_error(f"error: {result.error}")
                self.failed += 1
                continue
            if self.as_json or self.output is None:
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
    """Write (image id, caption) pairs in COCO's results format, and how many on stderr; ``what`` names one."""
    entries = [{"image_id": image_id, "caption": text} for image_id, text in captions]
    write_text(path, json.dumps(entries, indent=0) + "\n")
    print_error(f"{counted(len(entries), what)} written to {path}")


def accept_any_file_name() -> None:
    """Let stdin and stdout carry file names that are not valid text: unchanged, or escaped where that is impossible."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
