"""Intervals of a video on the command line: ``0-5.2,5.2-9``, or a file with START<tab>END in seconds on each line."""

from __future__ import annotations

import os
import re
from pathlib import Path

from captioner.data.records import read_lines
from captioner.errors import DataError, UsageError

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
BETWEEN = re.compile(rf"\s*({NUMBER})\s*-\s*({NUMBER})\s*")
SHORTEST = 0.1
"""Shortest window in seconds."""


def read_intervals(intervals: str | None, every: float | None) -> list[tuple[float, float]] | float | None:
    """The intervals of ``--intervals``, or the length of windows of ``--every``, in seconds; None without either.

    Raises ``UsageError`` if both are given or one is malformed, ``DataError`` for a malformed file.
    """
    if intervals is None:
        if every is not None and not SHORTEST <= every < float("inf"):
            raise UsageError(f"--every must be at least {SHORTEST} s, not {every}")
        return every
    if every is not None:
        raise UsageError("give --intervals or --every, not both")
    return _from_file(Path(intervals)) if os.path.isfile(intervals) else _from_text(intervals)


def _from_text(text: str) -> list[tuple[float, float]]:
    matches = [BETWEEN.fullmatch(part) for part in text.split(",")]
    if not all(matches):
        raise UsageError(f"--intervals {text}: expected a file, or seconds such as 0-5.2,5.2-9")
    return [(float(match[1]), float(match[2])) for match in matches if match]


def _from_file(path: Path) -> list[tuple[float, float]]:
    """The intervals of a file; further columns and empty lines are ignored."""
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split()
        if not columns:
            continue
        if len(columns) < 2 or not all(re.fullmatch(NUMBER, column) for column in columns[:2]):
            raise DataError(f"{path}, line {number}: expected START<tab>END in seconds, not {line}")
        found.append((float(columns[0]), float(columns[1])))
    if not found:
        raise DataError(f"{path}: holds no intervals; write START<tab>END in seconds on each line")
    return found
