"""Batches of captions of similar length, in an order that depends only on the seed and the epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captioner.errors import DataError
from captioner.text.vocabulary import END, PAD, START


@dataclass(frozen=True)
class Batch:
    """``rows`` (B,) are row numbers of images' features; ``inputs`` and ``targets`` (B, T) are int64 word ids.

    Inputs start with ``START``, targets end with ``END``; both are padded with ``PAD``. ``targets[:, t]`` is the word
    that follows ``inputs[:, t]``.
    """

    rows: Tensor
    inputs: Tensor
    targets: Tensor

    @property
    def tokens(self) -> int:
        """Number of targets that are not padding."""
        return int((self.targets != PAD).sum())


class CaptionBatches:
    """The training captions, in batches.

    Captions are shuffled, sorted by length within windows of ``window`` batches (so that the captions of a batch are of
    similar length, but differ in every epoch), and cut into batches whose sizes differ by at most one; then the batches
    are shuffled. Several processes share a batch by taking rows ``rank::world`` of it.
    """

    def __init__(
        self,
        ids: Sequence[Sequence[int]],
        image_rows: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        max_length: int | None = None,
        window: int = 64,
    ) -> None:
        """``ids``: word ids of each caption without start and end; ``image_rows``: the row of its image.

        ``max_length`` counts tokens with the end token; longer captions are cut and then have no ``END`` (otherwise the
        model would learn to stop in mid-sentence).
        """
        if len(ids) != len(image_rows):
            raise DataError(f"{len(ids)} captions but {len(image_rows)} image rows: expected one row per caption")
        if not ids:
            raise DataError("there are no captions to make batches of")
        self._count = -(-len(ids) // batch_size)
        self._seed, self._window = seed, window
        limit = max_length if max_length is not None else max(map(len, ids)) + 1
        self._lengths = np.array([min(len(caption) + 1, limit) for caption in ids])  # targets, END included
        width = int(self._lengths.max())
        table = np.full((len(ids), width + 1), PAD, dtype=np.int64)
        for line, caption in zip(table, ids, strict=True):
            sequence = [START, *caption, END][: width + 1]
            line[: len(sequence)] = sequence
        self._table = torch.from_numpy(table)  # (captions, 1 + longest): START, words, END, PAD
        self._rows = torch.as_tensor(np.asarray(image_rows, dtype=np.int64))
        self._shards: NDArray[np.int64] | None = None
        self._buffer = len(ids)

    def by_shards(self, shards: NDArray[np.int64], buffer: int) -> CaptionBatches:
        """The same captions, in an order for images that are read shard by shard.

        ``shards`` (images,) is the shard of each row. The order of shards changes with every epoch; captions are
        shuffled within blocks of ``buffer`` captions, and batches only within their window.
        """
        found = copy.copy(self)
        found._shards, found._buffer = shards[self._rows.numpy()], buffer
        return found

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self._count

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch ``number``; a pure function of the seed and ``number``."""
        for chosen in self.order(number):
            length = int(self._lengths[chosen].max())
            part = torch.from_numpy(chosen)
            lines = self._table[part, : length + 1]  # (B, T + 1)
            targets = lines[:, 1:].clone()
            inputs = lines[:, :-1].clone()
            inputs[inputs == END] = PAD
            yield Batch(self._rows[part], inputs, targets)

    def order(self, number: int) -> list[NDArray[np.int64]]:
        """Caption numbers of each global batch in epoch ``number``; each caption occurs once."""
        generator = np.random.default_rng([self._seed, number])
        captions = self._shuffled(generator)
        batches = np.array_split(captions, self._count)  # sizes differ by at most one
        for start in range(0, self._count, self._window):
            near = np.concatenate(batches[start : start + self._window])
            near = near[np.argsort(self._lengths[near], kind="stable")]
            ends = np.cumsum([len(batch) for batch in batches[start : start + self._window]])[:-1]
            batches[start : start + self._window] = np.split(near, ends)
        span = self._count if self._shards is None else self._window
        starts = range(0, self._count, span)
        return [batches[at + i] for at in starts for i in generator.permutation(min(span, self._count - at))]

    def _shuffled(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """All caption numbers in random order; with shards, captions of the same shard are close together."""
        if self._shards is None:
            return generator.permutation(len(self._lengths))
        captions = np.argsort(generator.permutation(self._shards.max() + 1)[self._shards], kind="stable")
        for start in range(0, len(captions), self._buffer):
            generator.shuffle(captions[start : start + self._buffer])
        return captions
