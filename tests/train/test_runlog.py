"""The log of a run."""

from __future__ import annotations

import json
from pathlib import Path

from captioner.train.runlog import RunLog, read_log


def test_lines_that_are_no_records_are_left_out(tmp_path: Path) -> None:
    """Would catch a run that cannot be resumed because a line of its log is damaged or cut short."""
    path = tmp_path / "log.jsonl"
    good = [{"step": 1, "kind": "steps"}, {"step": 2, "kind": "epoch", "epoch": 1}]
    lines = [json.dumps(good[0]), "null", "[1]", '{"step": null, "kind": "steps"}', '{"step": 1}', "[" * 20_000]
    lines += ["9" * 5000, json.dumps(good[1]), '{"step": 2, "ki']
    path.write_bytes("\n".join(lines).encode() + b"\xff")
    RunLog(path, 2, epoch=2)
    assert read_log(path) == good


def test_an_epoch_ends_once(tmp_path: Path) -> None:
    """Would catch the end of an epoch twice: the run was killed between its line and its state."""
    log = RunLog(tmp_path / "log.jsonl", None)
    log.write("epoch", 4, epoch=1, cider=0.1)
    log.write("steps", 8, epoch=2)
    log.write("epoch", 8, epoch=2, cider=0.2)
    RunLog(tmp_path / "log.jsonl", 8, epoch=2).write("epoch", 8, epoch=2, cider=0.2)
    assert [(record["kind"], record["epoch"]) for record in read_log(tmp_path / "log.jsonl")] == [
        ("epoch", 1),
        ("steps", 2),
        ("epoch", 2),
    ]
