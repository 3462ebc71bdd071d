"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.crf.predictions import read_label_predictions
from captioner.errors import CaptionerError
from captioner.features.store import FeatureStore
from captioner.files import atomic_path, cache_folder, read_tensors, sha256, write_text


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


@pytest.mark.parametrize("read", [read_tensors, lambda path: FeatureStore(path).ids, read_label_predictions])
def test_a_file_that_must_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    """Would catch advice to make a sound file again that only lacks a permission, which root cannot take away."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"what the library cannot open")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(CaptionerError, match="model.safetensors: not readable; change its permissions"):
        read(path)
