"""From stored features to captions: the part that every LRCN model shares, whatever its features come from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from captioner.backbones.spec import BackboneSpec
from captioner.checkpoint import Checkpoint
from captioner.decoding import decode
from captioner.decoding.config import DecodingConfig
from captioner.decoding.options import with_options
from captioner.errors import CaptionerError, CheckpointError, FeatureStoreError, ImageError, UsageError
from captioner.features.spec import FeatureSpec, Store
from captioner.predictors.base import Caption, Result, Results
from captioner.predictors.streams import batches
from captioner.text.vocabulary import END, START

BATCH_SIZE = 64
"""Images or clips that are decoded together by default."""


class FeatureCaptioner:
    """A decoder with its vocabulary, for features of a known kind."""

    def __init__(self, checkpoint: Checkpoint, name: str = "model", device: str | torch.device = "cpu") -> None:
        self.name = name
        self.device = torch.device(device)
        self.checkpoint = checkpoint
        self.model = checkpoint.model.to(self.device).eval()

    @property
    def data_set(self) -> Any:
        """The data section of the configuration that the model was trained with."""
        return self.checkpoint.config.data

    def caption_features(
        self,
        stores: Store | Sequence[Store],
        ids: Iterable[str] | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        **options: Any,
    ) -> Results:
        """One ``Result`` for each id (by default all of the first store), in order, as they are made.

        ``stores`` are in the order of the model's inputs; ``options`` are fields of ``DecodingConfig``. An id that is
        not in all stores is an error of its result. Raises ``FeatureStoreError`` for a store of other features than
        the model's, naming both, and where no id has features.
        """
        config = self._config(options, batch_size)
        opened = list(stores) if isinstance(stores, Sequence) else [stores]
        self.check_stores(opened)
        return self._feature_results(opened, opened[0].ids if ids is None else ids, config, batch_size)

    @torch.inference_mode()
    def decode(self, features: Tensor, config: DecodingConfig) -> list[tuple[Caption, ...]]:
        """Features (N, D) to the captions of each row, best first."""
        with memory_errors():
            state = self.model.start(features)
            found = decode(self.model, state, len(features), config, start=START, end=END)
        if not all(ranked and all(math.isfinite(one.log_prob) for one in ranked) for ranked in found):
            raise CheckpointError(
                f"{self.name}: gives probabilities that are no numbers; the checkpoint or the features are damaged"
            )
        words = self.checkpoint.outputs
        return [tuple(Caption(words.decode(h.ids), h.log_prob) for h in ranked) for ranked in found]

    def check_stores(self, stores: Sequence[Store]) -> None:
        """Raise ``FeatureStoreError`` unless ``stores`` hold what the model takes, in the order of its inputs."""
        wanted = self.checkpoint.inputs
        if len(stores) != len(wanted):
            names = ", ".join(spec.key for spec in wanted) or "none"
            raise FeatureStoreError(f"{self.name} needs {len(wanted)} feature stores ({names}), got {len(stores)}")
        for index, (store, spec) in enumerate(zip(stores, wanted, strict=True)):
            reason = self._mismatch(index, store)
            if reason:
                raise FeatureStoreError(
                    f"{store.path}: made by {store.spec.key} ({store.spec.dimension} numbers), which {reason} "
                    f"the {spec.key} ({spec.dimension} numbers) of {self.name}"
                )

    def _mismatch(self, index: int, store: Store) -> str:
        """What keeps ``store`` from being the model's input ``index``; empty where nothing does."""
        found, spec = store.spec, self.checkpoint.inputs[index]
        if found.names != spec.names:
            return "has other labels than"
        if (found.dimension, found.digest) != (spec.dimension, spec.digest):
            return "is another network, layer or preparation than"
        return "" if self._same_weights(index, store) else "has other weights than"

    def _same_weights(self, index: int, store: Store) -> bool:
        """Whether features were made by the weights that the model was trained with, as far as the records say."""
        spec = self.checkpoint.inputs[index]
        return same_sha256(sha256_of(store.spec), sha256_of(spec), unknown=store.spec.key == spec.key)

    def _config(self, options: Mapping[str, Any], batch_size: int) -> DecodingConfig:
        """The model's decoding settings with a caller's options."""
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        return with_options(self.checkpoint.config.decoding, options)

    def _feature_results(
        self, stores: Sequence[Store], ids: Iterable[str], config: DecodingConfig, batch_size: int
    ) -> Results:
        names = ", ".join(str(store.path) for store in stores)
        ids = list(ids)
        held = set.intersection(*(set(store.ids) for store in stores))
        if held.isdisjoint(ids):
            raise FeatureStoreError(f"none of the {len(ids)} images has features in {names}; is it another data set?")
        for batch in batches(ids, batch_size):
            known = [image for image in batch if image in held]
            parts = [torch.from_numpy(store.get(known)) for store in stores]
            features = torch.cat(parts, 1).to(self.device)  # (N, D)
            captions = iter(self.decode(features, config) if known else ())
            for image in batch:
                if image in held:
                    yield Result(image, next(captions))
                else:
                    yield Result(image, error=ImageError(image, f"has no features in {names}"))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn a failed allocation into an error that says what helps."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise CaptionerError("not enough memory; lower batch_size, beam_size or num_samples") from error
        raise


def sha256_of(spec: FeatureSpec) -> str:
    """SHA-256 of a backbone's weight file, as far as its record has it."""
    return spec.sha256 if isinstance(spec, BackboneSpec) else ""


def same_sha256(one: str, other: str, unknown: bool) -> bool:
    """Whether two SHA-256 agree, one of which may be shortened; ``unknown`` where either is missing."""
    return one.startswith(other) or other.startswith(one) if one and other else unknown
