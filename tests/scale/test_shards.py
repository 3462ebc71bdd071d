from __future__ import annotations

import os
from pathlib import Path

import pytest

from captioner.errors import UsageError
from captioner.scale.shards import make_plan
from tests import tiny
from tests.scale.toy import write_tars


def test_the_same_sources_give_the_same_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an order that depends on the file system, a shard without a number, and one that is too large."""
    monkeypatch.chdir(tmp_path)
    write_tars(tmp_path / "data", 3)
    tiny.save_images(tmp_path / "photos", 5)
    Path("list.csv").write_text("path\na.png\nb.png\nc.png\n")
    plan = make_plan(["data/{000..002}.tar", "photos", "list.csv"], size=2)
    assert [(one.name, one.kind, one.source, one.first, one.count) for one in plan.shards] == [
        ("00000", "tar", "data/000.tar", 0, None),
        ("00001", "tar", "data/001.tar", 0, None),
        ("00002", "tar", "data/002.tar", 0, None),
        ("00003", "table", "list.csv", 0, 2),
        ("00004", "table", "list.csv", 2, 1),
        ("00005", "images", "photos/00.png", 0, 2),
        ("00006", "images", "photos/02.png", 0, 2),
        ("00007", "images", "photos/04.png", 0, 1),
    ]
    assert make_plan(["data/*.tar", "photos", "list.csv"], size=2) == plan


def test_what_names_nothing_is_an_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Would catch a missing tar that stops 99 others, or that nobody hears of."""
    write_tars(tmp_path, 1)
    plan = make_plan([f"{tmp_path}/{{000..001}}.tar", f"{tmp_path}/x*.tar", f"{tmp_path}/no*.png"])
    assert len(plan.shards) == 1
    assert [str(error.path).rpartition("/")[2] for error in plan.errors] == ["001.tar", "x*.tar", "no*.png"]
    with pytest.raises(UsageError, match="stdin"):
        make_plan(["-"])


def test_a_changed_tar_is_another_shard(tmp_path: Path) -> None:
    """Would catch captions of an old tar that pass for those of a new one of the same name and size."""
    (path,) = write_tars(tmp_path, 1)
    (before,) = make_plan([path]).shards
    os.utime(path, ns=(1, 1))
    (after,) = make_plan([path]).shards
    assert before.digest("s") != after.digest("s") != after.digest("t")
