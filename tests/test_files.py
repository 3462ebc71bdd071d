"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from captioner.crf.predictions import read_label_predictions
from captioner.errors import CaptionerError, DataError, UsageError
from captioner.features.store import FeatureStore
from captioner.files import (
    RESULTS,
    atomic_path,
    cache_folder,
    check_output,
    read_tensors,
    read_text,
    sha256,
    write_text,
)
from tests.conftest import CHECKOUT


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
    longest = tmp_path / ("é" * 127)  # of 255 bytes; a temporary name that is longer would fail after the work
    write_text(longest, "")
    assert longest.exists()
    target = tmp_path / ("x" * 300)
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


def test_what_stands_at_the_path_stays_what_it_is(tmp_path: Path) -> None:
    """Would catch a rename that makes a file of a link, or gives a private file to everybody or to another owner."""
    target, link, loop = tmp_path / "deep" / "real.json", tmp_path / "link.json", tmp_path / "loop"
    write_text(target, "old")
    target.chmod(0o600)
    if os.getuid() == 0:
        os.chown(target, 12345, 54321)
    owner = target.stat().st_uid, target.stat().st_gid
    link.symlink_to("deep/real.json")
    write_text(link, "new")
    status = target.stat()
    assert link.is_symlink() and target.read_text() == "new"
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, *owner)
    dangling = tmp_path / "dangling"
    dangling.symlink_to("nothing/yet")
    write_text(dangling, "made")
    assert dangling.is_symlink() and (tmp_path / "nothing" / "yet").read_text() == "made"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="loop"):
        write_text(loop, "")


def test_other_hard_links_keep_the_old_content(tmp_path: Path) -> None:
    """Would catch a run that rewrites the snapshot that somebody made of it with cp -al."""
    target, snapshot = tmp_path / "a", tmp_path / "snapshot"
    write_text(target, "old")
    os.link(target, snapshot)
    write_text(target, "new")
    assert (target.read_text(), snapshot.read_text()) == ("new", "old")


def test_write_protected_files_and_folders_are_refused(tmp_path: Path) -> None:
    """Would catch a rename over a file that its owner made read-only; root is the one who runs into it."""
    target = tmp_path / "kept.json"
    write_text(target, "kept")
    target.chmod(0o444)
    for path, words in ((target, "write-protected"), (tmp_path, "is a folder")):
        with pytest.raises(UsageError, match=words):
            write_text(path, "new")
    assert target.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [target]


def test_pipes_and_devices_are_written_into(tmp_path: Path) -> None:
    """Would catch a rename that destroys /dev/null, or that leaves the reader of a pipe waiting forever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        write_text(pipe, "through")
        assert read.result(timeout=10) == "through"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    terminal, end = os.openpty()
    device = os.ttyname(end)
    write_text(device, "seen")
    assert os.read(terminal, 100) == b"seen"
    assert stat.S_ISCHR(os.stat(device).st_mode)


def test_stdout_by_its_path_keeps_its_place(tmp_path: Path) -> None:
    """Would catch what was printed before or after being lost where /dev/stdout is a file."""
    program = (
        "from captioner.files import RESULTS, check_output, write_text\n"
        "print('before'); check_output('-o', '/dev/stdout', RESULTS)\n"
        "write_text('/dev/stdout', 'between\\n'); print('after')"
    )
    file = tmp_path / "out.txt"
    file.write_text("earlier\n")
    with file.open("a") as stream:
        subprocess.run([sys.executable, "-c", program], stdout=stream, check=True, cwd=CHECKOUT, timeout=60)
    assert file.read_text() == "earlier\nbefore\nbetween\nafter\n"
    assert list(tmp_path.iterdir()) == [file]


def test_what_may_be_replaced(tmp_path: Path) -> None:
    """Would catch outputs that are inputs under another name, and a device taken for a file of another kind."""
    results, other, folder = tmp_path / "r.json", tmp_path / "o.json", tmp_path / "new" / "folder"
    for text in ("", "[]\n", '\ufeff[\n{"image_id": 1}]'):
        results.write_text(text)
        check_output("-o", results, RESULTS, [other, None, "a\0b"])
    os.link(results, other)
    for path in (results, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="-o .* is the same file as .*; choose another name"):
            check_output("-o", path, RESULTS, [other, tmp_path / "x" / ".." / "nothing"])
    for text in ("[section]\nkey = 1\n", "a\tb\n", '{"images": []}', "\x89PNG"):
        other.write_text(text)
        with pytest.raises(UsageError, match="exists and is not a JSON list of results"):
            check_output("-o", other, RESULTS)
    check_output("-o", folder / "r.json", RESULTS)
    assert not folder.exists()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        check_output("-o", results / "r.json", RESULTS)
    check_output("-o", "/dev/null", RESULTS, ["/dev/null"])


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


def test_texts_come_from_regular_files(tmp_path: Path) -> None:
    """Would catch a reader that waits until somebody writes into a pipe, and a name that no file can have."""
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "not a regular file"), ("", "not a regular file"), ("a\0", "cannot be read: ")):
        with pytest.raises(DataError, match=message):
            read_text(f"{tmp_path}/{name}")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists a process's open files")
def test_the_rules_of_windows_are_imitated(tmp_path: Path) -> None:
    """Would catch tests that pass whatever the package does to open files: tests/windows_rules.py."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with path.open(), pytest.raises(PermissionError, match="Windows neither removes nor replaces a file that is open"):
        write_text(path, "new")
    write_text(path, "new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]
