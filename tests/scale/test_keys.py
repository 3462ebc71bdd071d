from __future__ import annotations

from pathlib import Path

import pytest

from captioner.errors import DataError
from captioner.scale.job import run_shard
from captioner.scale.keys import repeated_keys
from tests.scale.toy import make_job, shards_of, write_tar


@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_keys_of_several_shards_are_found(tmp_path: Path, output_format: str) -> None:
    """Would catch images of a name whose captions replace each other where somebody joins them by key."""
    if output_format == "parquet":
        pytest.importorskip("pyarrow")
    for name, keys in {"0": "ab", "1": "cd", "2": "abx"}.items():
        write_tar(tmp_path / f"{name}.tar", {f"{key}.png": b"x" for key in keys})
    job = make_job(tmp_path / "out", output_format)
    for shard in shards_of([str(tmp_path / "{0..2}.tar")]):
        run_shard(shard, job, job.open())
        if shard.name == "00001":
            assert repeated_keys(job.output) == (0, {})
    assert repeated_keys(job.output) == (2, {"a.png": ["00000", "00002"], "b.png": ["00000", "00002"]})
    assert repeated_keys(job.output, most=1) == (2, {"a.png": ["00000", "00002"]})
    (tmp_path / "out" / f"00001.{output_format}").write_bytes(b"{damaged")
    with pytest.raises(DataError, match="remove 00001.json"):
        repeated_keys(job.output)
