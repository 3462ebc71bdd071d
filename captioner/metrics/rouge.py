"""ROUGE-L (Lin 2004) as coco-caption computes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from captioner.metrics.base import Array
from captioner.metrics.corpus import Corpus, Integers

BETA = 1.2
BATCH_SIZE = 1024  # sentence pairs compared together


class RougeL:
    """F-measure (beta 1.2) of the longest common subsequence, averaged over images.

    The best precision and the best recall are taken over the references separately. An empty sentence counts as one
    (empty) word, as in coco-caption.
    """

    names = ("ROUGE-L",)
    settings = f"beta:{BETA:g}|version:1"

    def statistics(self, corpus: Corpus) -> Array:
        """(N, 2): the image's score, 0 to 1, and 1."""
        owners = corpus.owners[corpus.size :]
        common = lcs_lengths(corpus, owners, np.arange(corpus.size, len(corpus.lengths)))
        lengths = np.maximum(corpus.lengths, 1)
        common[(corpus.lengths[owners] == 0) & (corpus.lengths[corpus.size :] == 0)] = 1
        precision, recall = np.zeros(corpus.size), np.zeros(corpus.size)
        np.maximum.at(precision, owners, common / lengths[owners])
        np.maximum.at(recall, owners, common / lengths[corpus.size :])
        below = recall + BETA**2 * precision
        both = (1 + BETA**2) * precision * recall
        return np.stack([np.divide(both, below, out=np.zeros_like(both), where=below > 0), np.ones(corpus.size)], 1)

    def aggregate(self, sums: Array) -> dict[str, Array]:
        return {"ROUGE-L": 100 * sums[..., 0] / sums[..., 1]}


def lcs_lengths(corpus: Corpus, one: Integers, other: Integers) -> Integers:
    """Length of the longest common subsequence of each pair of sentences, given by their indices (P,), (P,).

    The dynamic program fills its table for many pairs at once, one row for each word of ``other``. Within a row the
    best value so far is a running maximum, because neighboring entries differ by at most 1.
    """
    found = np.zeros(len(one), np.int64)
    order = np.lexsort((corpus.lengths[one], corpus.lengths[other]))  # similar lengths together, for little padding
    for first in range(0, len(order), BATCH_SIZE):
        some = order[first : first + BATCH_SIZE]
        found[some] = _common(_padded(corpus, one[some], -1), _padded(corpus, other[some], -2))
    return found


def _common(one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.int32]:
    """Lengths (P,) of the longest common subsequences of sentences (L, P) and (M, P), whose paddings differ."""
    best = np.zeros((len(one) + 1, one.shape[1]), np.int32)
    for word in other:
        np.maximum(best[1:], best[:-1] + (one == word), out=best[1:])
        np.maximum.accumulate(best, axis=0, out=best)
    last: NDArray[np.int32] = best[-1]
    return last


def _padded(corpus: Corpus, sentences: Integers, padding: int) -> NDArray[np.int32]:
    """Words (L, P) of the sentences (P,); the longest has L words."""
    lengths = corpus.lengths[sentences]
    ends = corpus.lengths.cumsum()[sentences]
    steps = np.arange(lengths.max(initial=0))[:, None]  # (L, 1)
    places = np.minimum(ends - lengths + steps, max(len(corpus.tokens) - 1, 0))
    words = corpus.tokens[places] if len(corpus.tokens) else places
    return np.where(steps < lengths, words, padding).astype(np.int32)
