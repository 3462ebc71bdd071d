"""Remove a run's temporary folder when its driver has ended or was killed: ``python remover.py FOLDER``.

The driver holds the other end of stdin, so its end closes stdin. Processes that still use the folder are ended first,
if ``/proc`` shows them: Ray's take seconds, some a minute, to notice that their driver was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

TRIES, PAUSE = 300, 0.1
"""How often the folder is removed, and the seconds between: a process that has just started may write into it."""


def main(folder: str) -> None:
    """Wait for the driver to end, then clean up."""
    spared = {os.getpid(), os.getppid()}
    sys.stdin.read()
    for _ in range(TRIES):
        users = set(users_of(folder)) - spared
        for pid in users:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        if not users and not os.path.exists(folder):
            return
        time.sleep(PAUSE)


def users_of(folder: str) -> Iterator[int]:
    """Processes that name ``folder`` in their command line or have a file in it open."""
    for pid in filter(str.isdecimal, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with suppress(OSError):  # it has ended, or belongs to another user
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                is_named = folder.encode() in stream.read()
            if is_named or any(
                _target(f"/proc/{pid}/fd/{name}").startswith(folder) for name in os.listdir(f"/proc/{pid}/fd")
            ):
                yield int(pid)


def _target(link: str) -> str:
    with suppress(OSError):
        return os.readlink(link)
    return ""


if __name__ == "__main__":
    main(sys.argv[1])
