from __future__ import annotations

from pathlib import Path

import pytest

from captioner.errors import DataError, UsageError
from captioner.places import Folder, find_store, open_source


def test_an_address_that_nobody_can_open_is_one_error() -> None:
    """Would catch a traceback of fsspec's."""
    pytest.importorskip("fsspec")
    with pytest.raises(UsageError, match="nowhere://x/a.tar"):
        find_store("nowhere://x/a.tar")
    with pytest.raises(DataError, match="cannot be read"), open_source("memory://none/a.tar"):
        pass


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, kind: str) -> None:
    """Would catch half of a file that passes for the whole, and a folder that must exist before."""
    if kind == "memory":
        pytest.importorskip("fsspec")
    folder = Folder(str(tmp_path / "out") if kind == "disk" else "memory://whole/out")
    assert folder.names() == set()
    with pytest.raises(RuntimeError), folder.writing("a.txt") as path:
        path.write_text("half")
        raise RuntimeError
    assert folder.names() == set()
    folder.write("a.txt", "whole")
    assert folder.names() == {"a.txt"} and folder.read("a.txt") == b"whole"
    folder.remove(["a.txt", "b.txt"])
    assert folder.names() == set()
    with pytest.raises(FileNotFoundError):
        folder.read("a.txt")


def test_what_writers_left_is_removed(tmp_path: Path) -> None:
    """Would catch the unfinished files of another shard, or finished ones, that go too."""
    names = [".00001.jsonl.abc.tmp", ".00010.jsonl.abc.tmp", "00001.jsonl", ".00001.other"]
    for name in names:
        (tmp_path / name).touch()
    folder = Folder(str(tmp_path))
    folder.remove_unfinished("00001.", age=60)
    assert folder.names() == set(names)
    folder.remove_unfinished("00001.")
    assert folder.names() == set(names[1:])
