from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from captioner.errors import UsageError
from captioner.scale.job import Outcome, give_up, run_shard, start_run
from captioner.scale.status import SILENCE, read_status
from tests.scale.toy import make_job, shards_of, write_tars


def test_the_files_alone_say_how_far_a_run_is(tmp_path: Path) -> None:
    """Would catch a shard counted twice, and a process that died and counts as running."""
    shards, out = shards_of(write_tars(tmp_path, 6)), tmp_path / "out"
    job = make_job(out, delay=0.01)
    with pytest.raises(UsageError, match="no run"):
        read_status(str(out))
    start_run(job, shards)
    assert (read_status(str(out)).waiting, read_status(str(out)).seconds_left) == (6, None)
    for shard in shards[:2]:
        run_shard(shard, job, job.open())
    give_up(Outcome(shards[2], error="damaged"), job, 3)
    now = time.time()
    for shard, at in ((shards[3], now), (shards[4], now - SILENCE - 1), (shards[0], now)):
        sign = {"format": "captioner-shard", "shard": shard.name, "images": 1, "began": at, "at": at}
        (out / f"{shard.name}.running").write_text(json.dumps(sign))
    found = read_status(str(out))
    assert (found.shards, found.done, found.running, found.waiting) == (6, 2, 1, 2)
    assert found.failed == {"00002": "damaged"} and found.images == 8
    seconds = [json.loads((out / f"{shard.name}.json").read_text())["seconds"] for shard in shards[:2]]
    assert found.images_per_second == pytest.approx(8 / sum(seconds))
    assert found.seconds_left == pytest.approx(3 * sum(seconds) / 2)
