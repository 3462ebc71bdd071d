"""Streams of unknown length, batch by batch and a little ahead of their consumer."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 2
"""Threads that prepare items while their consumer works."""

T = TypeVar("T")
R = TypeVar("R")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """``items`` in lists of ``size``; the last may be shorter."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def prefetch(work: Callable[[T], R], items: Iterable[T], window: int) -> Generator[R, None, None]:
    """``work(item)`` for each item, in order, computed in threads up to ``window`` items ahead of the consumer."""
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the consumer stops early
        pool.shutdown(wait=False, cancel_futures=True)
