"""A script beside a run's driver: when that has ended or was killed, removes its folder for temporary files.

``python remover.py FOLDER``; the driver's end is that of stdin. Processes that still use the folder are ended first,
where ``/proc`` tells of them: those of Ray need seconds, some of them a minute, to miss a driver that was killed.
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
"""How often the folder is removed, and seconds between: a process that has just started may write into it."""


def main(folder: str) -> None:
    """Wait for the end of the driver, and clean up."""
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
    """Processes that have ``folder`` in their command line, or a file in it open."""
    for pid in filter(str.isdecimal, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with suppress(OSError):  # it has ended, or is somebody else's
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
