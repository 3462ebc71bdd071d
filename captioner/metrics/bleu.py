"""Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002) as coco-caption defines them."""

from __future__ import annotations

import numpy as np

from captioner.metrics.base import Array
from captioner.metrics.corpus import ORDER, Corpus, Integers, Ngrams, find, sum_by


class Bleu:
    """Clipped precisions, closest reference length (the shorter of two), no smoothing.

    Equal to sacreBLEU without its tokenizer and smoothing. Where an order has no match at all both give 0 and
    coco-caption about 1e-5; everywhere else the three are equal.
    """

    names = tuple(f"BLEU-{n}" for n in range(1, ORDER + 1))
    settings = "reflen:closest|smooth:none|version:1"

    def statistics(self, corpus: Corpus) -> Array:
        """(N, 10): tokens, closest reference length, n-grams that match and n-grams there are, each for n = 1 to 4."""
        corpus = corpus.at_blanks
        lengths = corpus.lengths[: corpus.size]
        correct = [_matches(corpus, ngrams) for ngrams in corpus.ngrams]
        total = [np.maximum(lengths - n, 0) for n in range(ORDER)]
        return np.stack([lengths, _closest(corpus), *correct, *total], 1).astype(np.float64)

    def aggregate(self, sums: Array) -> dict[str, Array]:
        """BLEU-1 to BLEU-4 in percent; brevity penalty, lengths and precisions (of 1) as further parts."""
        length, closest = sums[..., 0], sums[..., 1]
        with np.errstate(divide="ignore", invalid="ignore"):  # no caption has n words, or none matches: 0
            penalty = np.where(length < closest, np.where(length > 0, np.exp(1 - closest / length), 0.0), 1.0)
            precisions = np.nan_to_num(sums[..., 2 : 2 + ORDER] / sums[..., 2 + ORDER :])
            logs = np.log(precisions).cumsum(-1)
        means = np.exp(logs / np.arange(1, ORDER + 1)) * penalty[..., None] * 100
        found = {name: means[..., n] for n, name in enumerate(self.names)}
        found |= {f"precision-{n + 1}": precisions[..., n] for n in range(ORDER)}
        return found | {"brevity_penalty": penalty, "length": length, "reference_length": closest}


def _matches(corpus: Corpus, ngrams: Ngrams) -> Array:
    """N-grams of each caption that are in a reference, each at most as often as in one reference, (N,)."""
    distinct = max(len(ngrams.keys), 1)
    border = np.searchsorted(ngrams.sentence, corpus.size)
    place = corpus.owners[ngrams.sentence] * distinct + ngrams.ngram  # which n-gram of which image
    order = np.argsort(place[border:], kind="stable")
    there, first = np.unique(place[border:][order], return_index=True)
    most = np.maximum.reduceat(ngrams.count[border:][order], first) if len(first) else ngrams.count[:0]
    at, known = find(there, place[:border])
    matched = np.zeros(border, np.int64)
    matched[known] = np.minimum(ngrams.count[:border][known], most[at[known]])
    return sum_by(ngrams.sentence[:border], corpus.size, matched)


def _closest(corpus: Corpus) -> Integers:
    """The length of the reference nearest in length to each caption, (N,)."""
    lengths, owners = corpus.lengths[corpus.size :], corpus.owners[corpus.size :]
    away = np.abs(lengths - corpus.lengths[owners])
    order = np.lexsort((lengths, away, owners))
    first = np.searchsorted(owners, np.arange(corpus.size))  # owners ascend
    return lengths[order[first]]
