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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from captioner.decoding.config import DecodingConfig
from captioner.decoding.options import with_options
from captioner.errors import ImageError
from captioner.predictors.base import Caption
from captioner.predictors.features import FeatureCaptioner
from captioner.predictors.images import BatchCaptioner
from captioner.predictors.streams import ImageSource, Prepared, memory_errors, prepare_image


class LRCNCaptioner(BatchCaptioner, FeatureCaptioner):
    """A decoder with its vocabulary, and the networks that compute its features from images."""

    def decoding_config(self, options: Mapping[str, Any]) -> DecodingConfig:
        return with_options(self.checkpoint.decoding, options)

    def load_networks(self) -> None:
        self.runtime.prepare()

    def prepare(self, image: ImageSource | ImageError) -> Prepared:
        """The image in each backbone's input format, or an ``ImageError`` if it cannot be read."""
        return prepare_image(image, self.checkpoint.inputs)

    def encode(self, inputs: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """Features (N, D), concatenated over backbones, of N prepared images, each one (3, S, S) for every backbone."""
        return self.runtime.encode([np.stack(images) for images in zip(*inputs, strict=True)])

    def describe(self, images: Sequence[Any], config: DecodingConfig) -> Sequence[tuple[Caption, ...]]:
        with memory_errors():
            return self.decode(self.encode(images), config)
