"""The rules of Windows for files, imitated on Linux, for what this process removes, replaces and syncs.

Windows neither removes nor replaces a file that is open or mapped into memory, and syncs a file only if it is open for
writing. Calls by other packages follow Linux's rules, as do processes that a test starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

PACKAGE = str(Path(__file__).parents[1] / "captioner") + os.sep
EXEMPT = os.sep + "lock"  # filelock removes its file on Windows, after it was released
LIBRARY = str(Path(os.__file__).parent) + os.sep


def install() -> None:
    """Let calls that Windows refuses raise ``PermissionError`` from now on; does nothing where there is no /proc."""
    if os.path.isdir("/proc/self/fd"):
        sys.addaudithook(_check)
        os.fsync = _fsync


def _check(event: str, arguments: tuple[object, ...]) -> None:
    if event not in ("os.remove", "os.rename") or not _is_ours():
        return
    for path in arguments[: 1 if event == "os.remove" else 2]:
        target = os.path.realpath(path) if isinstance(path, str | os.PathLike) else EXEMPT
        if not target.endswith(EXEMPT) and (use := _use(target)):
            raise PermissionError(13, f"Windows neither removes nor replaces a file that is {use}", str(path))


def _is_ours() -> bool:
    """Whether the innermost caller outside the standard library is in the package."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((LIBRARY, "<")) or "site-packages" in name:
            return name.startswith(PACKAGE)
        frame = frame.f_back
    return False


def _use(path: str) -> str:
    """How this process uses a file: "open", "mapped" or, empty, not at all."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == path:
                return "open"
        except OSError:  # it was closed, as that of listdir itself
            pass
    maps = Path("/proc/self/maps").read_bytes().splitlines()
    return "mapped" if any(line.endswith(b" " + os.fsencode(path)) for line in maps) else ""


def _fsync(file: int, sync: Callable[[int], None] = os.fsync) -> None:
    import fcntl

    if _is_ours() and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise PermissionError(13, "Windows syncs no file that is open only for reading")
    sync(file)
