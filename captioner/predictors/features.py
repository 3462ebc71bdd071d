"""From stored features to captions: the code that all LRCN models share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from captioner.backbones.spec import BackboneSpec
from captioner.data.records import Names
from captioner.decoding import Hypothesis, decode
from captioner.decoding.config import DecodingConfig
from captioner.decoding.options import with_options
from captioner.errors import CaptionerError, CheckpointError, FeatureStoreError, ImageError
from captioner.features.spec import FeatureSpec, Store
from captioner.predictors.base import Caption, Result, Results
from captioner.predictors.runtime import Runtime
from captioner.predictors.streams import BATCH_SIZE, batches, checked_batch_size, memory_errors
from captioner.text.vocabulary import END, START

ROWS_AT_ONCE = 4096
"""Most hypotheses, over all images, that are decoded together."""


class FeatureCaptioner:
    """A decoder with its vocabulary, for features of a known kind."""

    def __init__(self, runtime: Runtime, name: str = "model") -> None:
        self.runtime = runtime
        self.name = name

    @property
    def checkpoint(self) -> Any:
        """The header of the model's file: inputs, outputs, decoding settings and provenance."""
        return self.runtime.checkpoint

    @property
    def digest(self) -> str:
        """SHA-256 of the checkpoint's file; empty without a file."""
        return str(self.checkpoint.digest)

    def caption_features(
        self,
        stores: Store | Sequence[Store],
        ids: Iterable[str] | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        resumed: bool = False,
        **options: Any,
    ) -> Results:
        """Yield one ``Result`` for each id (by default all of the first store), in order.

        ``stores`` are in the order of the model's inputs; ``options`` are fields of ``DecodingConfig``. An id that is
        not in all stores is an error of its result. Raises ``FeatureStoreError`` for a store of other features than the
        model's, naming both, and if no id has features, unless ``resumed``, when others have been captioned before.
        """
        config = self._config(options, batch_size)
        opened = list(stores) if isinstance(stores, Sequence) else [stores]
        self.check_stores(opened)
        return self._feature_results(opened, opened[0].ids if ids is None else ids, config, batch_size, resumed)

    def decode(self, features: np.ndarray, config: DecodingConfig) -> list[tuple[Caption, ...]]:
        """The captions of each row of features (N, D) float32, best first."""
        rows = max(1, ROWS_AT_ONCE // (config.beam_size if config.method == "beam" else 1))
        found: list[list[Hypothesis]] = []
        with memory_errors():
            for first in range(0, len(features), rows):
                part = features[first : first + rows]
                found += decode(self.runtime, self.runtime.start(part), len(part), config, start=START, end=END)
        if not all(ranked and all(math.isfinite(one.log_prob) for one in ranked) for ranked in found):
            raise CheckpointError(
                f"{self.name}: gives probabilities that are not numbers; the checkpoint or the features are damaged"
            )
        words = self.checkpoint.outputs
        return [tuple(Caption(words.decode(h.ids), h.log_prob) for h in ranked) for ranked in found]

    def check_stores(self, stores: Sequence[Store]) -> None:
        """Raise ``FeatureStoreError`` unless ``stores`` match the model's inputs, in their order."""
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
        """The reason why ``store`` cannot be the model's input ``index``; empty if it can."""
        found, spec = store.spec, self.checkpoint.inputs[index]
        if found.names != spec.names:
            return "has other labels than"
        if (found.dimension, found.digest) != (spec.dimension, spec.digest):
            return "is another network, layer or preparation than"
        return "" if self._same_weights(index, store) else "has other weights than"

    def _same_weights(self, index: int, store: Store) -> bool:
        """Whether features were computed by the weights that the model was trained with, as far as the records say."""
        if known := self.runtime.weights_digest(index):
            return known == store.weights_digest
        spec = self.checkpoint.inputs[index]
        return same_sha256(sha256_of(store.spec), sha256_of(spec), unknown=store.spec.key == spec.key)

    def _config(self, options: Mapping[str, Any], batch_size: int) -> DecodingConfig:
        """The model's decoding settings, overridden by a caller's options."""
        checked_batch_size(batch_size)
        return with_options(self.checkpoint.decoding, options)

    def _feature_results(
        self, stores: Sequence[Store], ids: Iterable[str], config: DecodingConfig, batch_size: int, resumed: bool
    ) -> Results:
        names = ", ".join(str(store.path) for store in stores)
        ids = list(ids)
        held = [Names(store.ids) for store in stores]
        if not any(all(image in some for some in held) for image in ids) and not resumed:
            raise FeatureStoreError(f"none of the {len(ids)} images has features in {names}; is it another data set?")
        for batch in batches(ids, batch_size):
            known = [all(image in some for some in held) for image in batch]
            read = iter(_read(stores, [*itertools.compress(batch, known)]) if any(known) else ())
            missing = f"has no features in {names}"
            vectors = [
                next(read) if here else ImageError(image, missing) for image, here in zip(batch, known, strict=True)
            ]
            good = [vector for vector in vectors if isinstance(vector, np.ndarray)]
            captions = iter(self.decode(np.stack(good), config) if good else ())
            for image, vector in zip(batch, vectors, strict=True):
                if isinstance(vector, np.ndarray):
                    yield Result(image, next(captions))
                else:
                    yield Result(image, error=vector)


def _read(stores: Sequence[Store], ids: Sequence[str]) -> list[np.ndarray | ImageError]:
    """The features (D,) of each of ``ids`` in all ``stores``, or the error that names the damaged one."""
    try:
        return list(np.concatenate([store.get(ids) for store in stores], 1))
    except CaptionerError as error:
        if len(ids) == 1:
            return [ImageError(ids[0], str(error))]
        return [found for image in ids for found in _read(stores, [image])]


def sha256_of(spec: FeatureSpec) -> str:
    """SHA-256 of a backbone's weight file, as far as its spec has it."""
    return spec.sha256 if isinstance(spec, BackboneSpec) else ""


def same_sha256(one: str, other: str, unknown: bool) -> bool:
    """Whether two SHA-256 agree, one of which may be shortened; ``unknown`` if either is missing."""
    return one.startswith(other) or other.startswith(one) if one and other else unknown
