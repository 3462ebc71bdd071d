"""Image files, for training the backbone together with the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captioner.backbones.spec import BackboneSpec, prepare
from captioner.data.images import open_image

Key = tuple[int, bool]  # row of an image, and whether it is mirrored


class ImageFiles:
    """Prepared images by row; ``workers`` processes open them ahead of the training, or with 0 this process does.

    Without ``mirror`` no image is mirrored.
    """

    def __init__(self, paths: Sequence[Path], spec: BackboneSpec, workers: int, mirror: bool) -> None:
        self.paths = paths
        self.spec = spec
        self.workers = workers
        self.mirror = mirror

    def stream(self, rows: Sequence[Tensor], flips: Sequence[Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
        """``{"input": images (B, 3, S, S)}`` for each batch of rows (B,)."""
        if flips is None or not self.mirror:
            flips = [torch.zeros(len(r), dtype=torch.bool) for r in rows]
        keys = [list(zip(r.tolist(), f.tolist(), strict=True)) for r, f in zip(rows, flips, strict=True)]
        full = [batch for batch in keys if batch]  # a process may have no row in a small last batch
        opened = iter(DataLoader(_Files(self.paths, self.spec), batch_sampler=full, num_workers=self.workers))
        for batch in keys:
            yield {"input": next(opened) if batch else torch.empty(0)}


class _Files(Dataset[Tensor]):
    def __init__(self, paths: Sequence[Path], spec: BackboneSpec) -> None:
        self.paths = paths
        self.spec = spec  # not the network, which would be sent to every worker

    def __getitem__(self, key: Key) -> Tensor:
        row, mirrored = key
        prepared = torch.from_numpy(prepare(open_image(self.paths[row]), self.spec))  # (3, S, S)
        return prepared.flip(-1) if mirrored else prepared
