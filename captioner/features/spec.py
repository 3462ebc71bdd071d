"""The specification of a feature, and the interface to stored features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from captioner.errors import FeatureStoreError, shorten
from captioner.registry import resolve

KINDS = {
    "feature": "captioner.features.spec:FeatureSpec",
    "backbone": "captioner.backbones.spec:BackboneSpec",
    "video": "captioner.features.video_spec:VideoSpec",
}
"""Class of a spec by the ``kind`` in its dictionary."""
COUNTERS = "num_batches_tracked"
"""Batch norms count training steps in it; inference does not use it."""
LARGEST_ITEM = 2**26
"""Largest size of an item, in numbers."""


@dataclass(frozen=True)
class FeatureSpec:
    """One kind of feature: its name, its shape and the meaning of its numbers."""

    kind: ClassVar[str] = "feature"

    key: str
    """The source of the feature: a backbone's key, or for example ``labels@map``."""
    dimension: int = 0
    """Size of one vector, D."""
    frames: int = 0
    """Number of vectors in one item, T; 0 if an item is a single vector."""
    names: tuple[str, ...] = ()
    """The meaning of each number of a vector, NODE=LABEL, if it has one; else empty."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        for item in fields(self):  # annotations are strings here
            kind: type | None = {"str": str, "int": int}.get(str(item.type))
            if kind and type(getattr(self, item.name)) is not kind:
                raise FeatureStoreError(f"a {self.kind} record: {item.name} must be {item.type}")
        if not all(isinstance(name, str) for name in self.names):
            raise FeatureStoreError(f"{self.key}: names must be texts")
        if self.names and len(self.names) != self.dimension:
            raise FeatureStoreError(f"{self.key}: {len(self.names)} names for {self.dimension} numbers")
        if self.dimension < 0 or self.frames < 0 or self.dimension * max(self.frames, 1) > LARGEST_ITEM:
            raise FeatureStoreError(
                f"{self.key}: dimension {self.dimension} and frames {self.frames} must be 0 or more, and not more than "
                f"{LARGEST_ITEM} numbers together"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item: (D,) or (T, D)."""
        return (self.frames, self.dimension) if self.frames else (self.dimension,)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that depend on the meaning of the numbers."""
        return digest([self.key, self.frames, self.names])

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values; ``read_spec`` is its inverse."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"kind": self.kind, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """A spec of this class; raises ``FeatureStoreError`` for unknown or missing fields."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known - {"kind"})
        if unknown:
            raise FeatureStoreError(
                f"unknown field {shorten(unknown[0])} in a {cls.kind} record; known: {', '.join(sorted(known))}"
            )
        try:
            return cls(**{name: value for name, value in values.items() if name != "kind"})
        except TypeError as error:
            raise FeatureStoreError(f"not a {cls.kind} record: {error}") from None


def read_spec(values: Mapping[str, Any]) -> FeatureSpec:
    """The spec from the dictionary of ``to_dict``, of the class that its ``kind`` names."""
    if not isinstance(values, Mapping):
        raise FeatureStoreError("a feature record is a JSON object")
    kind: type[FeatureSpec] = resolve(KINDS, str(values.get("kind")), "kind of feature record", FeatureStoreError)
    return kind.from_dict(values)


def digest(values: Sequence[Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of ``values`` as JSON."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and values of a network's weights and statistics, independent of the runtime."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        if not name.endswith(COUNTERS):
            total.update(f"{name}{tuple(array.shape)}".encode())
            total.update(np.ascontiguousarray(array, np.float32).tobytes())
    return total.hexdigest()


class Store(Protocol):
    """Stored features by id: the only interface through which training and prediction read features."""

    @property
    def path(self) -> str | Path:
        """The file or folder, for messages."""
        ...

    @property
    def spec(self) -> FeatureSpec:
        """The specification of the features."""
        ...

    @property
    def weights_digest(self) -> str:
        """Digest of the weights that computed the features; empty if no network did."""
        ...

    @property
    def dtype(self) -> str:
        """Type of the stored features: float16 or float32."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Ids of all items with a feature."""
        ...

    @property
    def unfinished(self) -> Sequence[str]:
        """Ids of items without a feature, such as images that could not be read."""
        ...

    def get(self, ids: Sequence[str]) -> np.ndarray:
        """Features of ``ids`` in that order, (N, D) or (N, T, D) float32; an error names missing ids."""
        ...

    def summary(self) -> dict[str, Any]:
        """A description of the store, by name, as JSON values."""
        ...


def check_mirrored(where: str, stored: bool, wanted: bool | None) -> None:
    """Raise ``FeatureStoreError`` if features of mirrored images are given but not wanted, or the reverse.

    ``wanted`` None accepts both.
    """
    if wanted is not None and wanted != stored:
        kinds = ("images as they are", "mirrored images (captioner extract --mirror)")
        raise FeatureStoreError(f"{where}: made of {kinds[stored]}, wanted: {kinds[wanted]}")
