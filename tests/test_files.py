"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from captioner.files import atomic_path, cache_folder, sha256, write_text


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    """Would catch a writer that truncates the target first."""
    target = tmp_path / "result.json"
    write_text(target, "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_names_the_file_that_was_wanted(tmp_path: Path) -> None:
    """Would catch messages about a temporary file that nobody has heard of."""
    target = tmp_path / ("x" * 250)  # the temporary name is longer than file systems take
    with pytest.raises(OSError) as caught:
        write_text(target, "")
    assert caught.value.filename == str(target)


def test_write_makes_folders_and_gives_usual_permissions(tmp_path: Path) -> None:
    """Would catch mkstemp's 0600 staying on files that others should read."""
    target = tmp_path / "new" / "deep" / "text.txt"
    write_text(target, "grüße")
    plain = tmp_path / "plain"
    plain.touch()
    assert target.read_bytes() == "grüße".encode()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("CAPTIONER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "captioner"
