"""Files: atomic writing that never replaces the wrong file, tensors, digests, and the cache folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.errors import CaptionerError, CheckpointError, DataError, UsageError, shorten

if TYPE_CHECKING:
    import h5py
    import numpy as np
    from torch import Tensor

LARGEST_CHUNK = 2**28
"""Most bytes of memory for a chunk of an HDF5 dataset."""
BEST_RATIO = 100
"""Largest compression ratio that the strings of an HDF5 dataset can have."""


HEAD = 1 << 16
"""First bytes of a file that are read to tell its kind."""


@dataclass(frozen=True)
class Kind:
    """A kind of file that a command writes and may replace."""

    name: str
    start: bytes
    """Regular expression that matches the start of such files."""

    def matches(self, path: str | Path) -> bool:
        """Whether the file is empty or of this kind."""
        with open(path, "rb") as stream:
            start = stream.read(HEAD)
        return not start or re.match(self.start, start, re.DOTALL) is not None


RESULTS = Kind("a JSON list of results", rb"(\xef\xbb\xbf)?\s*\[\s*[\]{]")
HDF5 = Kind("an HDF5 file", rb"\x89HDF\r\n\x1a\n")
SAFETENSORS = Kind("a safetensors file", rb".{8}\{")
PLOT = Kind("a plot of this program", rb"\x89PNG\r\n\x1a\n(.*Matplotlib|.{25}\0\0\0\tpHYs\0\0\x10\xeb\0\0\x10\xeb\x01)")
"""PNG with Matplotlib's name or, as in earlier versions, with the 110 dots per inch of ``eval.figures`` first."""


def check_output(option: str, path: str | Path, kind: Kind, inputs: Iterable[str | Path | None] = ()) -> None:
    """Raise ``UsageError`` unless ``path`` can be written without losing anything; called before hours of work.

    An existing file must be empty or of the same ``kind``, and none of ``inputs``, which are the files that the command
    reads and its other outputs. A device, a pipe and the file of stdout may be anything.
    """
    status = check_writable(path)
    if status is not None and _is_stream(status):
        return
    for other in inputs:
        if other is not None and _is_same_file(path, other):
            raise UsageError(f"{option} {path} is the same file as {other}; choose another name")
    if status is not None and not kind.matches(path):
        raise UsageError(f"{option} {path} exists and is not {kind.name}; choose another name, or remove it first")
    folder = Path(os.path.realpath(path)).parent
    while not folder.exists():  # it will be created
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: {folder} is a file, not a folder; choose another name")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{option} {path}: no permission to write into that folder")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path whose file replaces ``path`` when the block ends, or is removed if the block raises.

    Symbolic links are followed, and the new file gets the mode and owner of the old one, whose other hard links keep
    the old content. A device, a pipe, or the file of stdout or stderr is written to directly at the end. Raises
    ``UsageError`` as ``check_writable`` does.
    """
    status = check_writable(path)
    is_stream = status is not None and _is_stream(status)
    target = Path(os.path.realpath(path))
    folder = Path(tempfile.gettempdir()) if is_stream else target.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".tmp", dir=folder)
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
            with temporary.open("r+b") as stream:  # Windows syncs only files that are open for writing
                os.fsync(stream.fileno())
            replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(temporary: Path, path: str | Path) -> None:
    """Rename ``temporary`` to the target of ``path``, with the mode and owner of the existing file."""
    target = os.path.realpath(path)
    mine = os.stat(temporary)
    try:
        old = os.stat(target)
    except FileNotFoundError:
        os.chmod(temporary, 0o666 & ~_umask())
    else:
        if (old.st_uid, old.st_gid) != (mine.st_uid, mine.st_gid):
            with suppress(PermissionError):  # only root may change owners
                os.chown(temporary, old.st_uid, old.st_gid)
        os.chmod(temporary, old.st_mode & 0o777)
    os.replace(temporary, target)


def check_writable(path: str | Path) -> os.stat_result | None:
    """The status of the target of ``path``, None if there is none.

    Raises ``UsageError`` for a folder and for a file that may not be written. A read-only file is refused for root too,
    who could write it: somebody protected it.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{path} is a folder; give the name of a file")
    if not os.access(path, os.W_OK) or not status.st_mode & 0o222:
        raise UsageError(f"{path}: is write-protected; make it writable or choose another file")
    return status


def is_stream(path: str | Path) -> bool:
    """Whether ``path`` is written to directly, not replaced: a device, a pipe, or the file of stdout or stderr."""
    return os.path.exists(path) and _is_stream(os.stat(path))


def place(path: str | Path) -> str:
    """The path of a file in a unique spelling; a link to another file stays a link."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_tensors(path: str | Path, prefix: str | None = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file whose names begin with ``prefix`` (none of them with None), and its header.

    Raises ``CheckpointError`` for a file that cannot be read.
    """
    return _read_safetensors(path, prefix, "pt")


def read_arrays(path: str | Path, prefix: str | None = "") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """``read_tensors`` as numpy arrays; with None only the names are used."""
    arrays, header = _read_safetensors(path, prefix, "np")
    for name, array in arrays.items():
        if array is not None and array.dtype.kind not in "biufc":  # another package may add bfloat16 to numpy
            raise CheckpointError(f"{path}: holds a tensor of a type that is not read here ({name}, {array.dtype})")
    return arrays, header


def _read_safetensors(path: str | Path, prefix: str | None, framework: str) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    require_regular(path, CheckpointError)
    try:
        with safe_open(path, framework) as stream:
            names = [name for name in stream.keys() if name.startswith(prefix or "")]  # noqa: SIM118
            read = stream.get_tensor if prefix is not None else lambda name: None
            return {name: read(name) for name in names}, stream.metadata() or {}
    except (TypeError, AttributeError) as error:  # raised by numpy for bfloat16 or float8
        raise CheckpointError(f"{path}: holds a tensor of a type that is not read here ({error})") from error
    except (SafetensorError, OSError) as error:
        check_readable(path, CheckpointError)
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: damaged, cut off or not a safetensors file ({reason})") from error


def read_text(path: str | Path, error: type[CaptionerError] = DataError) -> str:
    """The text of a UTF-8 file without its byte-order mark; ``error`` says why it cannot be read."""
    require_regular(path, error)
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = cause.object.count(b"\n", 0, cause.start) + 1
        raise error(f"{path}, line {line}: not UTF-8 text; save the file with the encoding UTF-8") from cause
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the name
        raise error(f"{path}: cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause


def parse_header(path: str | Path, text: str, what: str, version: int) -> dict[str, Any]:
    """The JSON object ``text`` of a safetensors header; ``CheckpointError`` if it is damaged or of another version."""
    try:
        contents: dict[str, Any] = json.loads(text)
        found = contents["version"]
        json.dumps(contents, ensure_ascii=False).encode()  # fails for lone surrogates, which cannot be printed
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error})") from error
    if found != version:
        raise CheckpointError(f"{path}: {what} of version {shorten(found)}; this captioner reads version {version}")
    return contents


def check_readable(path: str | Path, error: type[CaptionerError]) -> None:
    """Raise ``error`` if the file exists but may not be read, which libraries report as damage."""
    if os.path.exists(path) and not os.access(path, os.R_OK):
        raise error(f"{path}: not readable; change its permissions (chmod u+r) or ask its owner")


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Name of the first tensor with a value that is not finite; empty if there is none."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), "")


def stored_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset stored in ``file`` itself that is safe to read.

    Raises ``ValueError`` for links and external storage, which may be any file, for chunks that would fill the memory,
    and for more strings than can be stored in the file.
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
    with suppress(OSError, ValueError):  # opening the file reports what is wrong with its name
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise error(f"{path}: not a regular file; give one that can be read from any place, not a pipe or device")


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """The download folder: ``$CAPTIONER_CACHE``, else ``$XDG_CACHE_HOME/captioner``, else ``~/.cache/captioner``."""
    chosen = os.environ.get("CAPTIONER_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "captioner"


def torch_checkpoints() -> Path:
    """torch.hub's folder of weight files, found as torch does but without importing it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser() / "hub" / "checkpoints"


def _is_same_file(one: str | Path, other: str | Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one does not exist
        return os.path.realpath(one) == os.path.realpath(other)
    except ValueError:  # a NUL, which no file name can contain
        return False


def _write_through(source: Path, path: str | Path, status: os.stat_result) -> None:
    """Copy ``source`` into a device or pipe, or into the file of stdout or stderr at that stream's position."""
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


def _is_stream(status: os.stat_result) -> bool:
    """Whether this is written to directly, not replaced: no regular file, or the file of stdout or stderr."""
    return not stat.S_ISREG(status.st_mode) or _standard_stream(status) is not None


def _standard_stream(status: os.stat_result) -> int | None:
    """The file number of stdout or stderr if it is the file with this status, else None."""
    for number in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(os.fstat(number), status):
                return number
    return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
