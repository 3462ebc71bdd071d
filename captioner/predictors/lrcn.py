"""From images, or their stored features, to captions.

    from captioner import load
    captioner = load()
    captioner.caption("photo.jpg")                             # one caption
    captioner.caption(["a.jpg", "b.jpg"], beam_size=5)         # a list of captions
    for result in captioner.results(paths):                    # a stream in constant memory, with log probabilities
        print(result.image, result.captions or result.error)

An image and its stored feature give the same caption: both go through the same code from the feature on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from PIL import Image

from captioner.decoding.config import DecodingConfig
from captioner.errors import ImageError
from captioner.predictors.base import Result, Results, texts
from captioner.predictors.features import BATCH_SIZE, FeatureCaptioner, memory_errors
from captioner.predictors.streams import ImageSource, Prepared, batches, prefetch, prepare_image


class LRCNCaptioner(FeatureCaptioner):
    """A decoder with its vocabulary, and what makes its features from images."""

    def caption(
        self, images: ImageSource | Iterable[ImageSource], /, *, batch_size: int = BATCH_SIZE, **options: Any
    ) -> Any:
        """The caption of one image (a path or PIL image), or a list with one for each of several.

        ``options`` are fields of ``DecodingConfig``; with ``num_return_sequences`` above 1, each is a list of captions,
        best first. Raises ``ImageError`` for the first image that cannot be read; ``results`` continues after it.
        """
        config = self._config(options, batch_size)
        several = config.num_return_sequences > 1
        alone = isinstance(images, str | os.PathLike | Image.Image)
        stream = self._stream([images] if alone else images, config, batch_size)  # type: ignore[list-item,arg-type]
        captions = [texts(result, several) for result in stream]
        return captions[0] if alone else captions

    def results(
        self, images: Iterable[ImageSource | ImageError], /, *, batch_size: int = BATCH_SIZE, **options: Any
    ) -> Results:
        """One ``Result`` for each image, in order, as they are made; errors among ``images`` are passed on.

        Only a few batches are in memory at a time, however many images there are.
        """
        return self._stream(images, self._config(options, batch_size), batch_size)

    def prepare(self, image: ImageSource | ImageError) -> Prepared:
        """The image as each backbone takes it; an image that cannot be read gives an ``ImageError`` instead."""
        return prepare_image(image, self.checkpoint.inputs)

    def encode(self, inputs: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """Prepared images, N times one (3, S, S) for each backbone, to features (N, D), concatenated."""
        return self.runtime.encode([np.stack(images) for images in zip(*inputs, strict=True)])

    def _stream(self, images: Iterable[ImageSource | ImageError], config: DecodingConfig, batch_size: int) -> Results:
        self.runtime.prepare()  # here, not in two threads at once
        with closing(prefetch(self.prepare, images, window=batch_size + min(batch_size, BATCH_SIZE))) as prepared:
            for batch in batches(prepared, batch_size):
                yield from self._caption_batch(batch, config)

    def _caption_batch(self, batch: Sequence[Prepared], config: DecodingConfig) -> Iterator[Result]:
        good = [inputs for _, inputs in batch if not isinstance(inputs, ImageError)]
        with memory_errors():
            captions = iter(self.decode(self.encode(good), config) if good else ())
        for image, inputs in batch:
            if isinstance(inputs, ImageError):
                yield Result(image, error=inputs)
            else:
                yield Result(image, next(captions))
