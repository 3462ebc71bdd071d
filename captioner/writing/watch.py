"""New images in folders, once they are complete: size and time have not changed between two checks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from captioner.data.images import ImageFile, find_named
from captioner.errors import ImageError

State = tuple[int, int, int]
"""Inode, size and modification time (ns) of a file."""


def arrivals(
    folders: Sequence[str], interval: float, sleep: Callable[[float], object] = time.sleep
) -> Iterator[list[ImageFile]]:
    """Yield for ever, in non-empty lists, the images that are new or changed and complete since the last check."""
    seen: dict[Path, State] = {}
    done: dict[Path, State] = {}
    while True:
        found = [one for one in find_named(folders) if not isinstance(one, ImageError)]
        states = {one.path: state for one in found if (state := _state(one.path)) is not None}
        whole = [
            one for one in found if one.path in states and states[one.path] == seen.get(one.path) != done.get(one.path)
        ]
        seen = states
        done = {path: state for path, state in done.items() if path in states}
        if whole:
            yield whole
            # captions may have been written into the images meanwhile: that is no change
            for one in whole:
                if (state := _state(one.path)) is not None:
                    seen[one.path] = done[one.path] = state
        sleep(interval)


def _state(path: Path) -> State | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status.st_size else None
