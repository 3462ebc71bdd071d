"""Files written whole or not at all, tensors read from them, their digests, and the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path whose file replaces ``path`` when the block ends, and vanishes when it raises.

    Symbolic links are followed, and a file that is replaced hands on its mode and owner. Its other hard links keep the
    old content. A device, a pipe, or whatever stdout or stderr goes to, is written into at the end instead. Raises
    ``UsageError`` as ``check_writable`` does.
    """
    status = check_writable(path)
    is_stream = status is not None and (not stat.S_ISREG(status.st_mode) or _standard_stream(status) is not None)
    target = Path(os.path.realpath(path))
    folder = Path(tempfile.gettempdir()) if is_stream else target.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=folder)
    except OSError as error:
        error.filename = str(path)  # the file that the user named
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if status is not None and is_stream:
            _write_through(temporary, path, status)
        else:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(temporary: Path, path: str | Path) -> None:
    """Rename ``temporary`` to what ``path`` leads to, with the mode and owner of the file that was there."""
    target = os.path.realpath(path)
    mine = os.stat(temporary)
    try:
        old = os.stat(target)
    except FileNotFoundError:
        os.chmod(temporary, 0o666 & ~_umask())
    else:
        if (old.st_uid, old.st_gid) != (mine.st_uid, mine.st_gid):
            with suppress(PermissionError):  # only root may give files away
                os.chown(temporary, old.st_uid, old.st_gid)
        os.chmod(temporary, old.st_mode & 0o777)
    os.replace(temporary, target)


def check_writable(path: str | Path) -> os.stat_result | None:
    """The status of what ``path`` leads to, None for nothing.

    Raises ``UsageError`` for a folder and for a file that may not be written. A read-only file counts as such for root
    too, who could write it: somebody protected it.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{path} is a folder; give the name of a file")
    if not os.access(path, os.W_OK) or not status.st_mode & 0o222:
        raise UsageError(f"{path}: is write-protected; make it writable or choose another file")
    return status


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_tensors(path: str | Path, prefix: str | None = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file whose names begin with ``prefix`` (none of them with None), and its header.

    Raises ``CheckpointError`` for a file that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as stream:
            names = [] if prefix is None else [name for name in stream.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name: stream.get_tensor(name) for name in names}, stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: damaged, cut off or not a safetensors file ({reason})") from error


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where downloads live: ``$CAPTIONER_CACHE``, else ``$XDG_CACHE_HOME/captioner``, else ``~/.cache/captioner``."""
    chosen = os.environ.get("CAPTIONER_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "captioner"


def _write_through(source: Path, path: str | Path, status: os.stat_result) -> None:
    """Copy ``source`` into a device or pipe; for the file of stdout or stderr, to where that stream stands."""
    number = _standard_stream(status)
    if number is not None:
        for printed in (sys.stdout, sys.stderr):
            if printed is not None:  # closed
                printed.flush()
        handle = os.dup(number)
    else:
        handle = os.open(path, os.O_WRONLY)
    with source.open("rb") as stream, os.fdopen(handle, "wb") as sink:
        shutil.copyfileobj(stream, sink)


def _standard_stream(status: os.stat_result) -> int | None:
    """The number of stdout or stderr where that goes to the file of this status."""
    for number in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(os.fstat(number), status):
                return number
    return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
