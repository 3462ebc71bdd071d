"""Features of training images that are read shard by shard, for data sets that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from captioner.errors import ConfigError
from captioner.features.shards import ShardedStore

Stores = Mapping[str, Sequence[ShardedStore]]
"""Stores by name; several under one name are concatenated."""


class StreamedFeatures:
    """Features by name and row (``captioner.tasks.sentences.data.Images``); those of rows ``kept`` stay in memory.

    A shard is read when the first batch needs it and dropped after the last one, so the order of batches decides how
    many are in memory at a time. All stores, also those of ``mirrored`` images, must have the same images in the same
    shards; otherwise ``ConfigError`` is raised. The rows ``kept`` are never mirrored.
    """

    def __init__(self, stores: Stores, mirrored: Stores | None, ids: Sequence[str], kept: Tensor) -> None:
        self._sides = [stores] if mirrored is None else [stores, mirrored]
        every = [store for side in self._sides for some in side.values() for store in some]
        places = every[0].places(ids)
        for other in every[1:]:
            if not np.array_equal(other.places(ids), places):
                raise ConfigError(
                    f"{other.path} has other images in its shards than {every[0].path}; extract both from the same "
                    "shards, or set data.shuffle_buffer to 0, which reads all features into memory"
                )
        self.places = torch.from_numpy(places)  # (N, 2): shard, row
        self._kept = torch.full((len(ids),), -1)
        self._kept[kept] = torch.arange(len(kept))
        names = [ids[row] for row in kept.tolist()]
        self._tables = {
            name: _side_by_side([store.get(names).astype(store.dtype) for store in some])
            for name, some in stores.items()
        }

    def stream(self, rows: Sequence[Tensor], flips: Sequence[Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
        """Features (B, D) float32 by name for each batch of rows (B,); ``flips`` (B,) bool says which are mirrored."""
        needed = [set(self.places[wanted[self._kept[wanted] < 0], 0].tolist()) for wanted in rows]
        last = {shard: number for number, shards in enumerate(needed) for shard in shards}
        loaded: dict[int, dict[str, Tensor]] = {}
        for number, (wanted, shards) in enumerate(zip(rows, needed, strict=True)):
            loaded |= {shard: self._read(shard) for shard in shards - loaded.keys()}
            side = torch.zeros_like(wanted) if flips is None or len(self._sides) == 1 else flips[number].long()
            yield {name: self._take(name, wanted, side, loaded) for name in self._tables}
            for shard in shards:
                if last[shard] == number:
                    del loaded[shard]

    def _read(self, shard: int) -> dict[str, Tensor]:
        """The features of a shard by name, (1, n, D), or with those of mirrored images (2, n, D)."""
        return {
            name: torch.stack([_side_by_side([store.read(shard) for store in side[name]]) for side in self._sides])
            for name in self._tables
        }

    def _take(self, name: str, rows: Tensor, side: Tensor, loaded: Mapping[int, Mapping[str, Tensor]]) -> Tensor:
        """Features (B, D) float32 of rows (B,); ``side`` (B,) is 1 for the mirrored image."""
        taken = torch.empty(len(rows), self._tables[name].shape[1])
        kept = self._kept[rows] >= 0
        taken[kept] = self._tables[name][self._kept[rows[kept]]].float()
        for shard in set(self.places[rows[~kept], 0].tolist()):
            here = ~kept & (self.places[rows, 0] == shard)
            taken[here] = loaded[shard][name][side[here], self.places[rows[here], 1]].float()
        return taken


def _side_by_side(features: Sequence[np.ndarray]) -> Tensor:
    """Features (n, D) of several stores as (n, D + D' + ...)."""
    return torch.from_numpy(np.concatenate(features, axis=1))
