"""The code that all image captioners share: images in, results out, batch by batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from PIL import Image

from captioner.decoding.config import DecodingConfig
from captioner.errors import ImageError
from captioner.predictors.base import Caption, Result, Results, texts
from captioner.predictors.streams import BATCH_SIZE, ImageSource, batches, checked_batch_size, prefetch


class BatchCaptioner:
    """A captioner of images; subclasses prepare an image and caption a batch of prepared images."""

    batch_size = BATCH_SIZE
    """Default number of images in a batch."""
    name: str
    """The name or path from which the model was loaded."""

    def caption(
        self, images: ImageSource | Iterable[ImageSource], /, *, batch_size: int | None = None, **options: Any
    ) -> Any:
        """The caption of one image (a path or PIL image), or a list with one for each of several.

        ``options`` are fields of ``DecodingConfig``; with ``num_return_sequences`` above 1, each is a list of captions,
        best first. Raises ``ImageError`` for the first image that cannot be read; ``results`` continues after it.
        """
        config = self.decoding_config(options)
        several = config.num_return_sequences > 1
        alone = isinstance(images, str | os.PathLike | Image.Image)
        stream = self._stream([images] if alone else images, config, batch_size)  # type: ignore[list-item,arg-type]
        captions = [texts(result, several) for result in stream]
        return captions[0] if alone else captions

    def results(
        self, images: Iterable[ImageSource | ImageError], /, *, batch_size: int | None = None, **options: Any
    ) -> Results:
        """Yield one ``Result`` for each image, in order; errors among ``images`` are passed on.

        Only a few batches are in memory at a time, however many images there are.
        """
        return self._stream(images, self.decoding_config(options), batch_size)

    def decoding_config(self, options: Mapping[str, Any]) -> DecodingConfig:
        """The model's decoding settings, overridden by a caller's options; ``UsageError`` for unsupported options."""
        raise NotImplementedError

    def load_networks(self) -> None:
        """Load everything for ``prepare`` and ``describe`` now, since two threads must not load it at once."""

    def prepare(self, image: ImageSource | ImageError) -> tuple[ImageSource, Any]:
        """The image in the model's input format, or an ``ImageError`` if it cannot be read."""
        raise NotImplementedError

    def describe(self, images: Sequence[Any], config: DecodingConfig) -> Sequence[tuple[Caption, ...] | ImageError]:
        """The captions of prepared images, best first, or the error that prevented them."""
        raise NotImplementedError

    def _stream(
        self, images: Iterable[ImageSource | ImageError], config: DecodingConfig, batch_size: int | None
    ) -> Results:
        size = checked_batch_size(self.batch_size if batch_size is None else batch_size)
        return self._results(images, config, size)

    def _results(self, images: Iterable[ImageSource | ImageError], config: DecodingConfig, size: int) -> Results:
        self.load_networks()
        with closing(prefetch(self.prepare, images, window=size + min(size, BATCH_SIZE))) as prepared:
            for batch in batches(prepared, size):
                yield from self._describe_batch(batch, config)

    def _describe_batch(self, batch: Sequence[tuple[ImageSource, Any]], config: DecodingConfig) -> Iterator[Result]:
        good = [inputs for _, inputs in batch if not isinstance(inputs, ImageError)]
        described = iter(self.describe(good, config) if good else ())
        for image, inputs in batch:
            found = inputs if isinstance(inputs, ImageError) else next(described)
            yield Result(image, error=found) if isinstance(found, ImageError) else Result(image, found)
