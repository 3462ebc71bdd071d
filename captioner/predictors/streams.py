"""Streams of unknown length, batch by batch and a little ahead of their consumer."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from PIL import Image

from captioner.backbones.spec import BackboneSpec
from captioner.errors import ImageError

THREADS = 2
"""Threads that prepare items while their consumer works."""

ImageSource = str | os.PathLike[str] | Image.Image
Prepared = tuple[ImageSource, list[np.ndarray] | ImageError]
"""An image and its tensor for each backbone, (3, S, S), or the error in their place."""

T = TypeVar("T")
R = TypeVar("R")


def prepare_image(image: ImageSource | ImageError, specs: Sequence[BackboneSpec]) -> Prepared:
    """The image as each backbone takes it; an image that cannot be read gives an ``ImageError`` instead."""
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
