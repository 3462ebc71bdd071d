"""Files written whole or not at all, tensors read from them, their digests, and the cache folder."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.errors import CaptionerError, CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends, and vanishes when it raises."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        error.filename = str(target)  # the file that the user named
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_tensors(path: str | Path, prefix: str | None = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file whose names begin with ``prefix`` (none of them with None), and its header.

    Raises ``CheckpointError`` for a file that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    require_regular(path, CheckpointError)
    try:
        with safe_open(path, "pt") as stream:
            names = [] if prefix is None else [name for name in stream.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name: stream.get_tensor(name) for name in names}, stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: damaged, cut off or not a safetensors file ({reason})") from error


def require_regular(path: str | Path, error: type[CaptionerError]) -> None:
    """Raise ``error`` for a pipe, socket, device or folder, which could block or never end; a missing file passes."""
    with suppress(OSError, ValueError):  # whoever opens the file says what is wrong with its name
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise error(f"{path}: not a regular file; give one that can be read from any place, not a pipe or device")


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
