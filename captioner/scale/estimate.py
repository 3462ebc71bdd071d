"""Estimate how long a run takes, by captioning a few images."""

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
    """The size of a run, and the speed of one worker."""

    images: int
    """Number of images; for tars, their size divided by the mean size of the images that were tried."""
    rate: float
    """Images per second, without the time to load the model."""
    tried: int
    """Number of images that the rate was measured on."""

    @property
    def seconds(self) -> float:
        """Seconds that one worker needs for all images."""
        return self.images / self.rate


def estimate(shards: Sequence[Shard], work: Work, trial: int) -> Estimate | None:
    """Estimate from the first ``trial`` rows of the first shard; None if it has no rows."""
    rows = list(itertools.islice(rows_of(shards[0]), trial))
    if not rows:
        return None
    list(work(iter(rows[:1])))  # the first image includes the loading of the model
    began = time.perf_counter()
    list(work(iter(rows)))
    rate = len(rows) / (time.perf_counter() - began)
    mean = sum(len(row.data) for row in rows) / len(rows) + 512  # bytes of a tar header
    images = sum(shard.count if shard.count is not None else int((shard.mark or (0,))[0] / mean) for shard in shards)
    return Estimate(max(images, len(rows)), rate, len(rows))
