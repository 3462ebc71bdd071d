"""A process of its own for readers that work outside Python: what crashes or fills it is one failed input."""

from __future__ import annotations

import atexit
import resource
import sys
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError
from tests.fuzz import SECONDS, check_error

MEMORY = 3 * 2**30
"""Bytes of addresses that a worker may take, threads' stacks and heaps included; an image may take
``captioner.data.images.MAX_BYTES``, a sixth."""
START_SECONDS = 120
"""PyTorch is imported first."""


class Worker:
    """Calls functions in another process, which it starts when it is first needed, and anew after a crash."""

    def __init__(self) -> None:
        self._pipe: Connection | None = None
        self._process: Any = None

    def __call__(self, function: Callable[..., Any], *arguments: Any, seconds: float = SECONDS) -> Any:
        """What ``function`` returns, or None where it raises a ``CaptionerError``; nothing else may happen."""
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        self._pipe.send((function, arguments))
        try:
            if not self._pipe.poll(seconds):
                self.stop()
                raise AssertionError(f"an input takes longer than {seconds} s")
            fault, value = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            status = self._process.exitcode
            self.stop()
            raise AssertionError(f"the process ended with status {status}") from None
        assert not fault, value
        return value

    def stop(self) -> None:
        if self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._pipe = None

    def _start(self) -> None:
        context = get_context("spawn")  # a fork would inherit the locks of PyTorch's threads
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end,), daemon=True)
        self._process.start()
        end.close()
        assert self._pipe.poll(START_SECONDS) and self._pipe.recv() == "ready"


isolated = Worker()
atexit.register(isolated.stop)


def _serve(pipe: Connection) -> None:
    """Call what comes through the pipe until it is closed."""
    import h5py  # noqa: F401
    import torch
    import torch._dynamo  # which an optimizer imports

    torch.set_num_threads(1)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipe.send("ready")
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(_attempt(function, arguments))


def _attempt(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """(False, what ``function`` returns) or (True, what went wrong)."""
    try:
        return False, function(*arguments)
    except CaptionerError as error:
        try:
            check_error(error)
            assert not _out_of_memory(error), f"an input takes more than {MEMORY / 1e6:.0f} MB"
        except AssertionError:
            return True, traceback.format_exc()
        return False, None
    except BaseException:
        return True, traceback.format_exc()


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether an error comes from a failed allocation."""
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__
    return False
