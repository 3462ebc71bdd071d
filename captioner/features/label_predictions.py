"""Label predictions of clips as features, so that a clip captioner trains like any other captioner."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captioner.crf.predictions import KINDS, LabelPredictions, read_label_predictions
from captioner.data.clips import whole_clip
from captioner.errors import FeatureStoreError
from captioner.features.shards import open_shards
from captioner.features.spec import FeatureSpec, Store
from captioner.features.store import FeatureStore

KEYS = {f"labels@{kind}": kind for kind in KINDS}
"""Kind of vector, by the key of its spec."""


class LabelPredictionsStore:
    """Label predictions as a ``Store``: one-hot MAP assignments (kind ``map``) or probabilities (``marginals``).

    ``predictions`` are read from ``path`` when they are first needed, unless they are passed.
    """

    unfinished: Sequence[str] = ()
    weights_digest = ""
    dtype = "float32"

    def __init__(self, path: str | Path, kind: str, predictions: LabelPredictions | None = None) -> None:
        self.path = Path(path)
        self.kind = kind
        if predictions is not None:
            self.predictions = predictions

    @cached_property
    def predictions(self) -> LabelPredictions:
        return read_label_predictions(self.path)

    @cached_property
    def spec(self) -> FeatureSpec:
        """The spec; its ``names`` are NODE=LABEL, so predictions of other labels have another digest."""
        names = [f"{node}={label}" for node, labels in self.predictions.labels.items() for label in labels]
        return FeatureSpec(f"labels@{self.kind}", len(names), names=tuple(names))

    @property
    def ids(self) -> list[str]:
        return self.predictions.ids

    def get(self, ids: Sequence[str]) -> np.ndarray:
        """Vectors of the clips ``ids`` in that order, (N, D) float32; raises ``DataError`` for missing ones.

        A clip of a single sentence (``CLIP#3``) has the predictions of its clip unless it has its own.
        """
        rows = self.predictions.rows
        vectors: np.ndarray = self.vectors[
            self.predictions.select([name if name in rows else whole_clip(name) for name in ids])
        ]
        return vectors

    def summary(self) -> dict[str, Any]:
        """Key, source and a digest of the values."""
        digest = hashlib.sha256(self.vectors.tobytes()).hexdigest()[:16]
        return {"key": self.spec.key, "source": self.predictions.source, "digest": digest}

    @cached_property
    def vectors(self) -> np.ndarray:
        """Vectors of all rows of the file, (R, D) float32."""
        return self.predictions.vector(self.kind)


def open_store(path: str | Path, *, mirrored: bool | None = False) -> Store:
    """Open a feature store, features in shards, or a label-predictions file: ``FILE@map`` or ``FILE@marginals``.

    Shards may be in an object store, such as ``s3://bucket/features``.
    """
    shards = open_shards(path, mirrored)
    if shards is not None:
        return shards
    name, at, kind = str(path).rpartition("@")
    if not at or Path(path).exists():
        return FeatureStore(path, mirrored=mirrored)
    if kind not in KINDS:
        choices = " or ".join(f"{name}@{kind}" for kind in KINDS)
        raise FeatureStoreError(f"{path}: label predictions are read as {choices}")
    return LabelPredictionsStore(name, kind)
