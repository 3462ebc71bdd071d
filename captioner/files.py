"""Files written whole or not at all, tensors read from them, their digests, and the cache folder."""

from __future__ import annotations

import hashlib
import math
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.errors import CaptionerError, CheckpointError

if TYPE_CHECKING:
    import h5py
    from torch import Tensor

LARGEST_CHUNK = 2**28
"""Bytes that a chunk of an HDF5 dataset may take in memory."""
BEST_RATIO = 100
"""Texts of an HDF5 dataset are never compressed better."""


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


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Name of the first tensor with a value that is not finite; empty where there is none."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), "")


def stored_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset stored in ``file`` itself, fit to be read.

    Raises ``ValueError`` for links and storage elsewhere, which may be any file, for chunks that fill the memory, and
    for more texts than are stored.
    """
    import h5py

    places = [name[:end] for end in range(len(name) + 1) if name[end : end + 1] in ("/", "")]
    inside = all(isinstance(file.get(place, getlink=True), h5py.HardLink) for place in places)
    data = file[name] if inside else None
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(f"{name} is not a dataset stored in the file")
    if data.chunks and math.prod(data.chunks) * data.dtype.itemsize > LARGEST_CHUNK:
        raise ValueError(f"a chunk of {name} has shape {data.chunks}, more than {LARGEST_CHUNK} bytes")
    if h5py.check_string_dtype(data.dtype) and data.nbytes > BEST_RATIO * data.id.get_storage_size():
        raise ValueError(f"{name} declares {data.size} texts, more than it holds")
    return data


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
