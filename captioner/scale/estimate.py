"""How long a run may take, by captioning a few images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from captioner.scale.job import Work
from captioner.scale.rows import rows_of
from captioner.scale.shards import Shard


@dataclass(frozen=True)
class Estimate:
    """Numbers for one worker."""

    images: int
    """Counted, or for tars their size over the mean size of the images that were tried."""
    rate: float
    """Images a second, loading the model aside."""
    tried: int
    """Images that the rate was measured on."""

    @property
    def seconds(self) -> float:
        """Time that all images take."""
        return self.images / self.rate


def estimate(shards: Sequence[Shard], work: Work, trial: int) -> Estimate | None:
    """By the first ``trial`` rows of the first shard; None where it has none."""
    rows = list(itertools.islice(rows_of(shards[0]), trial))
    if not rows:
        return None
    list(work(iter(rows[:1])))  # the first image waits for the model
    began = time.perf_counter()
    list(work(iter(rows)))
    rate = len(rows) / (time.perf_counter() - began)
    mean = sum(len(row.data) for row in rows) / len(rows) + 512  # and a header of tar
    images = sum(shard.count if shard.count is not None else int((shard.mark or (0,))[0] / mean) for shard in shards)
    return Estimate(max(images, len(rows)), rate, len(rows))
