"""Potentials of clips as features: a describer sees the labels that a CRF believes in as a captioner sees an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captioner.crf.predictions import KINDS, Potentials, read_potentials
from captioner.errors import FeatureStoreError
from captioner.features.spec import FeatureSpec, Store
from captioner.features.store import FeatureStore


class PotentialsStore:
    """Potentials read as a feature store of ``kind`` max (one-hot best assignment) or prob (probabilities).

    They are those of the file ``path`` unless they are given.
    """

    unfinished: Sequence[str] = ()
    weights_digest = ""
    dtype = "float32"

    def __init__(self, path: str | Path, kind: str, potentials: Potentials | None = None) -> None:
        self.path = Path(path)
        self.kind = kind
        if potentials is not None:
            self.potentials = potentials

    @cached_property
    def potentials(self) -> Potentials:
        return read_potentials(self.path)

    @cached_property
    def spec(self) -> FeatureSpec:
        """A record whose ``names`` say what each number means; potentials of other labels have another digest."""
        names = [f"{node}={label}" for node, labels in self.potentials.labels.items() for label in labels]
        key = f"potentials@{self.kind}"
        return FeatureSpec(key, len(names), names=tuple(names))

    @property
    def ids(self) -> list[str]:
        return self.potentials.ids

    def get(self, ids: Sequence[str]) -> np.ndarray:
        """Vectors of the clips ``ids`` in that order, (N, D) float32; ``DataError`` names those that are not there."""
        vectors: np.ndarray = self._vectors[self.potentials.select(ids)]
        return vectors

    def summary(self) -> dict[str, Any]:
        """What tells these numbers from others."""
        digest = hashlib.sha256(self._vectors.tobytes()).hexdigest()[:16]
        return {"key": self.spec.key, "source": self.potentials.source, "digest": digest}

    @cached_property
    def _vectors(self) -> np.ndarray:
        return self.potentials.vector(self.kind)


def open_store(path: str | Path, *, mirrored: bool | None = False) -> Store:
    """A feature store, or potentials read as one: FILE@max or FILE@prob."""
    name, at, kind = str(path).rpartition("@")
    if not at or Path(path).exists():
        return FeatureStore(path, mirrored=mirrored)
    if kind not in KINDS:
        raise FeatureStoreError(f"{path}: potentials are read as {' or '.join(f'{name}@{kind}' for kind in KINDS)}")
    return PotentialsStore(name, kind)
