"""Intervals of a video, on the command line or in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.cli.intervals import read_intervals
from captioner.errors import DataError


def test_a_file_of_another_program_is_read(tmp_path: Path) -> None:
    """Would catch a byte-order mark or a carriage return that is taken for a part of the first number."""
    path = tmp_path / "intervals.tsv"
    path.write_bytes("\ufeff0\t1.5\tcut\r\n\r\n1.5\t2\r\n".encode())
    assert read_intervals(str(path), None) == [(0, 1.5), (1.5, 2)]
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        read_intervals(str(path), None)
