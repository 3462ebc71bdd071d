"""The log of a run."""

from __future__ import annotations

from pathlib import Path

from captioner.train.runlog import read_log


def test_lines_that_are_no_records_are_left_out(tmp_path: Path) -> None:
    """Would catch a resumed run that ends with a traceback over a damaged line of its log."""
    lines = ['{"kind": "start", "step": 0}', "7", "{}", "[" * 20_000, "1" * 5000, '{"kind": "epoch", "st']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert read_log(tmp_path / "log.jsonl") == [{"kind": "start", "step": 0}]
