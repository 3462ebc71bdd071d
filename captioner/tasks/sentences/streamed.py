"""Features of training images read shard by shard, for data sets that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from captioner.features.shards import ShardStore


class StreamedFeatures:
    """Features by row (``captioner.tasks.sentences.data.Images``); those of rows ``kept`` stay in memory.

    A shard is read when the first batch needs it and forgotten after the last one: how many are in memory at a time is
    up to the order of the batches.
    """

    def __init__(self, store: ShardStore, ids: Sequence[str], kept: Tensor) -> None:
        self._store, self._size = store, store.spec.dimension
        self.places = torch.from_numpy(store.places(ids))  # (N, 2): shard, row
        self._kept = torch.full((len(ids),), -1)
        self._kept[kept] = torch.arange(len(kept))
        self._table = torch.from_numpy(store.get([ids[row] for row in kept.tolist()]).astype(np.float16))

    def stream(self, rows: Sequence[Tensor], flips: Sequence[Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
        """``{"input": features (B, D)}`` for each batch of rows (B,), float32; nothing is mirrored."""
        needed = [set(self.places[wanted[self._kept[wanted] < 0], 0].tolist()) for wanted in rows]
        last = {shard: number for number, shards in enumerate(needed) for shard in shards}
        loaded: dict[int, np.ndarray] = {}
        for number, (wanted, shards) in enumerate(zip(rows, needed, strict=True)):
            loaded |= {shard: self._store.read(shard) for shard in shards - loaded.keys()}
            yield {"input": self._take(wanted, loaded).float()}
            for shard in shards:
                if last[shard] == number:
                    del loaded[shard]

    def _take(self, rows: Tensor, loaded: dict[int, np.ndarray]) -> Tensor:
        """Features (B, D) float16 of rows (B,)."""
        taken = torch.empty(len(rows), self._size, dtype=torch.float16)
        kept = self._kept[rows] >= 0
        taken[kept] = self._table[self._kept[rows[kept]]]
        for shard in set(self.places[rows[~kept], 0].tolist()):
            here = ~kept & (self.places[rows, 0] == shard)
            taken[here] = torch.from_numpy(loaded[shard][self.places[rows[here], 1].numpy()])
        return taken
