"""Pairwise CIDEr-D among captions, and the caption that agrees best with the others.

The consensus of Devlin et al. 2015, "Exploring Nearest Neighbor Approaches for Image Captioning".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from captioner.metrics.base import Array
from captioner.metrics.cider import SIGMA, DocumentFrequency
from captioner.metrics.corpus import ORDER, Corpus, Integers, Ngrams, Tokens, sum_by


class Agreement:
    """CIDEr-D of each caption of a collection, with each of them as the only reference.

    With several references CIDEr-D is the mean over them, so the mean over some captions here is the score with those
    as references. An index from n-grams to captions computes a row of 30,000 scores in milliseconds.
    """

    def __init__(self, images: Sequence[Sequence[Tokens]]) -> None:
        """``images``: the captions' tokens by image; for document frequencies, each image is a document."""
        corpus = Corpus([()] * len(images), images)
        self.size = len(corpus.lengths) - len(images)
        idf = DocumentFrequency(images).idf(corpus)
        self._orders = [
            _Index(ngrams, weights, len(images), self.size) for ngrams, weights in zip(corpus.ngrams, idf, strict=True)
        ]
        self._bigrams = np.maximum(corpus.lengths[len(images) :] - 1, 0)

    def with_all(self, index: int) -> Array:
        """(N,) CIDEr-D, in percent, of caption ``index`` with each caption in the order of images, including itself."""
        similarity: Array = np.add.reduce([order.cosines(index) for order in self._orders]) / ORDER
        penalty: Array = np.exp(-((self._bigrams - self._bigrams[index]) ** 2) / (2 * SIGMA**2))
        return 1000 * similarity * penalty

    def among(self, chosen: Sequence[int]) -> Array:
        """(C, C) CIDEr-D, in percent, of each of the captions ``chosen`` (row) with each of them as reference."""
        similarity: Array = np.add.reduce([order.cosines_among(chosen) for order in self._orders]) / ORDER
        bigrams = self._bigrams[chosen]
        penalty: Array = np.exp(-((bigrams - bigrams[:, None]) ** 2) / (2 * SIGMA**2))
        return 1000 * similarity * penalty

    def center(self) -> int:
        """Index of a caption with the highest mean CIDEr-D with all captions.

        Without clipping and length penalty the mean is linear, so it is computed for all captions at once, and it is an
        upper bound: captions are tried in descending order of it, until no bound exceeds the best mean.
        """
        bounds = np.add.reduce([order.mean_cosines() for order in self._orders]) * (1000 / ORDER)
        best, place = -1.0, 0
        for index in np.argsort(-bounds, kind="stable"):
            if bounds[index] < best:
                break
            mean = float(self.with_all(index).mean())
            if mean > best:
                best, place = mean, int(index)
        return place


class _Index:
    """Inverted index of the n-grams of one order, with their TF-IDF weights."""

    def __init__(self, ngrams: Ngrams, idf: Array, images: int, size: int) -> None:
        self.size = size
        self.caption: Integers = ngrams.sentence - images  # (E,): the empty captions of the corpus come first
        self.weight = ngrams.count * idf[ngrams.ngram]  # (E,)
        self.ngram = ngrams.ngram
        self.norm = np.sqrt(sum_by(self.caption, size, self.weight**2))  # (N,)
        self.first = np.searchsorted(self.caption, np.arange(size + 1))  # where each caption's entries begin
        self.by_ngram = np.argsort(self.ngram, kind="stable")
        self.begin = np.searchsorted(self.ngram[self.by_ngram], np.arange(len(ngrams.keys) + 1))

    def cosines(self, index: int) -> Array:
        """(N,) clipped cosines of caption ``index`` with all, as ``captioner.metrics.cider`` defines them."""
        own = slice(self.first[index], self.first[index + 1])
        found = [self.by_ngram[self.begin[ngram] : self.begin[ngram + 1]] for ngram in self.ngram[own]]
        places = np.concatenate([np.empty(0, np.int64), *found])
        mine = np.repeat(self.weight[own], [len(entries) for entries in found])
        theirs = self.weight[places]
        dots = sum_by(self.caption[places], self.size, np.minimum(mine, theirs) * theirs)
        scale = self.norm[index] * self.norm
        cosines: Array = np.divide(dots, scale, out=np.zeros(self.size), where=scale > 0)
        return cosines

    def cosines_among(self, chosen: Sequence[int]) -> Array:
        """(C, C) clipped cosines of the captions ``chosen``."""
        entries = [np.arange(self.first[index], self.first[index + 1]) for index in chosen]
        places = np.concatenate(entries)
        order = np.argsort(self.ngram[places], kind="stable")
        places, row = places[order], np.repeat(np.arange(len(chosen)), [len(own) for own in entries])[order]
        ngram = self.ngram[places]
        begin = np.searchsorted(ngram, ngram)  # where the entries with the same n-gram begin
        size = np.searchsorted(ngram, ngram, "right") - begin
        mine = np.repeat(np.arange(len(places)), size)  # (P,): each entry, paired with every entry of the same n-gram
        theirs = np.arange(len(mine)) - np.repeat(size.cumsum() - size - begin, size)
        weight = self.weight[places]
        clipped = np.minimum(weight[mine], weight[theirs]) * weight[theirs]
        dots = sum_by(row[mine] * len(chosen) + row[theirs], len(chosen) ** 2, clipped).reshape(len(chosen), -1)
        scale = self.norm[chosen][:, None] * self.norm[chosen]
        cosines: Array = np.divide(dots, scale, out=np.zeros_like(dots), where=scale > 0)
        return cosines

    def mean_cosines(self) -> Array:
        """(N,) mean unclipped cosine of each caption with all, computed as that with the mean of all unit vectors."""
        norm = self.norm[self.caption]
        unit = np.divide(self.weight, norm, out=np.zeros_like(self.weight), where=norm > 0)  # (E,)
        mean = sum_by(self.ngram, len(self.begin) - 1, unit) / self.size  # (G,)
        return sum_by(self.caption, self.size, unit * mean[self.ngram])
