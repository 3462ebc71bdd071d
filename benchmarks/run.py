"""Measure speed ratios, print them as a table and add them to a CSV file.

    python -m benchmarks.run [NAME ...] [--output FILE]

Both sides of a ratio are measured in turns in one run; the docstring of each benchmark's file describes them. Exit
status 1 means that a benchmark could not run; a missed target is a result, not a failure.
"""

from __future__ import annotations

import csv
import datetime
import importlib
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.measure import Measurement
from captioner.cli.program import create_app, run
from captioner.errors import CaptionerError, UsageError
from captioner.files import write_text
from captioner.provenance import provenance

BENCHMARKS = {
    "startup": "benchmarks.startup:measure",
    "captioning": "benchmarks.captioning:measure",
    "published": "benchmarks.published:measure",
    "runtimes": "benchmarks.captioning:measure_runtimes",
    "extraction": "benchmarks.extraction:measure",
    "training": "benchmarks.training:measure",
    "training-clip-captioner": "benchmarks.training:measure_clip_captioner",
    "gradients": "benchmarks.gradients:measure",
    "decoding": "benchmarks.decoding:measure",
    "generate-beam": "benchmarks.generate_beam:measure",
    "tutorial-beam": "benchmarks.tutorial_beam:measure",
    "memory": "benchmarks.memory:measure",
    "scale": "benchmarks.scale:measure",
    "engines": "benchmarks.scale:measure_engines",
    "recognition": "benchmarks.recognition:measure",
    "recognition-memory": "benchmarks.recognition:measure_memory",
    "motion": "benchmarks.motion:measure",
    "crf": "benchmarks.crf:measure",
    "scoring": "benchmarks.scoring:measure",
    "scoring-memory": "benchmarks.scoring:measure_memory",
    "tokens": "benchmarks.tokens:measure",
    "smt": "benchmarks.smt:measure",
    "search-exact": "benchmarks.search:measure_exact",
    "search-graph": "benchmarks.search:measure_graph",
    "search-indexing": "benchmarks.search:measure_indexing",
    "search-start": "benchmarks.search:measure_start",
    "serve": "benchmarks.load:measure",
    "digits": "benchmarks.classification:measure",
    "local-response-norm": "benchmarks.classification:measure_normalization",
}
"""For each name, the function that returns a list of ``Measurement``."""
RESULTS = Path(__file__).parent / "results.csv"
COLUMNS = (
    "date benchmark ratio target direction verdict low high rounds ours baseline unit "
    "hardware cores threads python torch commit"
).split()
HEAD = ("benchmark", "ratio", "rounds from-to", "target", "", "ours", "baseline", "unit")


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Benchmarks to run.  [default: all]")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FILE", help="CSV file that gets the rows.")] = RESULTS,
) -> None:
    unknown = [name for name in names or () if name not in BENCHMARKS]
    if unknown:
        raise UsageError(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    results, failed = measure_all(names or list(BENCHMARKS))
    if results:
        print(table(results))
        append(output, results)
    if failed:
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks named, all by default; returns the exit status."""
    return run(create_app(__doc__, command), arguments)


def measure_all(names: Sequence[str]) -> tuple[list[Measurement], bool]:
    """All rows, and whether a benchmark could not run; the others run anyway."""
    results: list[Measurement] = []
    failed = False
    for name in names:
        module, _, function = BENCHMARKS[name].partition(":")
        began = time.monotonic()
        print(f"measuring {name} ...", end="", file=sys.stderr, flush=True)
        try:
            results += getattr(importlib.import_module(module), function)()
            print(f" {time.monotonic() - began:.0f} s", file=sys.stderr)
        except CaptionerError as error:
            failed = True
            print(f"\nerror: {name}: {error}", file=sys.stderr)
    return results, failed


def table(results: Sequence[Measurement]) -> str:
    """The rows as a table for people."""
    lines = [HEAD]
    for one in results:
        target = "" if one.target is None else f"{one.direction} {one.target:g}"
        spread = f"{one.low:.2f}-{one.high:.2f}"
        numbers = (
            (f"{one.ours:.4g}", f"{one.baseline:.4g}")
            if max(one.ours, one.baseline) < 1000
            else (
                f"{one.ours:,.0f}",
                f"{one.baseline:,.0f}",
            )
        )
        lines.append((one.benchmark, f"{one.ratio:.2f}", spread, target, one.verdict, *numbers, one.unit))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def append(path: Path, results: Sequence[Measurement]) -> None:
    """Add rows with date, hardware and versions to the CSV file, which is created if it does not exist."""
    versions = provenance()
    common = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "hardware": versions["machine"],
        "cores": versions["cores"],
        "threads": torch.get_num_threads(),
        "python": versions["python"],
        "torch": versions.get("torch", torch.__version__),
        "commit": versions.get("commit", ""),
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if not path.exists():
        writer.writeheader()
    for one in results:
        row = {name: getattr(one, name) for name in COLUMNS if hasattr(one, name)} | common
        writer.writerow({name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()})
    write_text(path, (path.read_text(encoding="utf-8") if path.exists() else "") + text.getvalue())


if __name__ == "__main__":
    sys.exit(main())
