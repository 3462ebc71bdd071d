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
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from captioner.decoding.config import DecodingConfig
from captioner.errors import BackboneError, CheckpointError, ImageError
from captioner.predictors.base import Result, Results, texts
from captioner.predictors.features import BATCH_SIZE, FeatureCaptioner, memory_errors, same_sha256, sha256_of
from captioner.predictors.streams import batches, prefetch

if TYPE_CHECKING:  # loaded when the first image needs them
    from captioner.backbones import Backbone
    from captioner.features.spec import Store

ImageSource = str | os.PathLike[str] | Image.Image
IMAGES_AT_ONCE = 128
"""Images in one pass through a backbone, whose layers take the most memory."""
Prepared = tuple[ImageSource, list[Tensor] | ImageError]
"""An image and its tensor for each backbone, (3, S, S), or the error in their place."""


class LRCNCaptioner(FeatureCaptioner):
    """A decoder with its vocabulary and the backbones that its features come from."""

    @cached_property
    def backbones(self) -> list[Backbone]:
        """The networks, with the checkpoint's weights where it holds them; loaded on first use."""
        from captioner.backbones import load_backbone

        if not self.checkpoint.inputs:
            raise CheckpointError(f"{self.name} does not caption images: it was trained on text alone")
        loaded = []
        for spec, state in zip(self.checkpoint.inputs, self._states, strict=True):
            backbone = load_backbone(spec.key, state=state)
            if backbone.spec.digest != spec.digest:
                raise BackboneError(f"{spec.key} has another layer or preprocessing than when {self.name} was trained")
            if state is None and not same_sha256(backbone.spec.sha256, sha256_of(spec), unknown=True):
                raise BackboneError(
                    f"{self.name} was trained on {spec.key} with weights {sha256_of(spec)[:16]}, "
                    f"those here are {backbone.spec.sha256[:16]} ({backbone.spec.weights})"
                )
            loaded.append(backbone.to(self.device).eval())
        return loaded

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
        from captioner.data.images import open_image

        if isinstance(image, ImageError):
            return image.path, image
        try:
            opened = open_image(image)
            return image, [backbone.preprocess(opened) for backbone in self.backbones]
        except ImageError as error:
            return image, error

    @torch.inference_mode()
    def encode(self, inputs: Sequence[Sequence[Tensor]]) -> Tensor:
        """Prepared images, N times one (3, S, S) for each backbone, to features (N, D), concatenated."""
        parts = []
        for backbone, images in zip(self.backbones, zip(*inputs, strict=True), strict=True):
            some = batches(images, IMAGES_AT_ONCE)
            parts.append(torch.cat([backbone(torch.stack(few).to(self.device)).float() for few in some]))
        return torch.cat(parts, 1)

    def _stream(self, images: Iterable[ImageSource | ImageError], config: DecodingConfig, batch_size: int) -> Results:
        self.backbones  # noqa: B018  # loaded here, not by two threads at once
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

    @property
    def _states(self) -> Sequence[dict[str, Tensor] | None]:
        """Weights of each backbone, None for those that the checkpoint does not hold."""
        return self.checkpoint.backbone_states or [None] * len(self.checkpoint.inputs)

    def _same_weights(self, index: int, store: Store) -> bool:
        if self._states[index] is None:
            return super()._same_weights(index, store)
        return bool(self.backbones[index].weights_digest == store.weights_digest)
