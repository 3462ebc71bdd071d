"""Batches from streams of unknown length, prepared ahead of their consumer."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from PIL import Image

from captioner.backbones.spec import BackboneSpec
from captioner.errors import CaptionerError, ImageError, UsageError

THREADS = 2
"""Threads that prepare items while the consumer works."""
BATCH_SIZE = 64
"""Default number of images or clips that are decoded together."""
LARGEST_BATCH = 1024
"""Largest ``batch_size``."""

ImageSource = str | os.PathLike[str] | Image.Image
Prepared = tuple[ImageSource, list[np.ndarray] | ImageError]
"""An image and its tensor for each backbone, (3, S, S), or an error instead of the tensors."""

T = TypeVar("T")
R = TypeVar("R")


def prepare_image(image: ImageSource | ImageError, specs: Sequence[BackboneSpec]) -> Prepared:
    """The image in each backbone's input format, or an ``ImageError`` if it cannot be read."""
    from captioner.backbones.spec import prepare
    from captioner.data.images import open_image

    if isinstance(image, ImageError):
        return image.path, image
    try:
        opened = open_image(image)
        return image, [prepare(opened, spec) for spec in specs]
    except ImageError as error:
        return image, error


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """``items`` in lists of ``size``; the last may be shorter."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def prefetch(work: Callable[[T], R], items: Iterable[T], window: int) -> Generator[R, None, None]:
    """Yield ``work(item)`` for each item, in order; threads compute it up to ``window`` items ahead of the consumer."""
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # even if the consumer stops early
        pool.shutdown(wait=False, cancel_futures=True)


def checked_batch_size(size: int) -> int:
    """``size``; raises ``UsageError`` if it is out of range."""
    if not 1 <= size <= LARGEST_BATCH:
        raise UsageError(f"batch_size must be between 1 and {LARGEST_BATCH}, not {size}")
    return size


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a failed memory allocation into an error that gives advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise CaptionerError("not enough memory; lower batch_size, beam_size or num_samples") from error
        raise
