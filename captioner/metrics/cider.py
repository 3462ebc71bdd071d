"""CIDEr-D (Vedantam et al. 2015) as coco-caption computes what it prints as "CIDEr"."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from captioner.errors import DataError
from captioner.metrics.base import Array
from captioner.metrics.corpus import ORDER, Corpus, Integers, Ngrams, Tokens, find, sum_by

SIGMA = 6.0


class Rarity:
    """How rare n-grams are among ``documents``, a document being the tokens of all references of one image."""

    def __init__(self, documents: Sequence[Sequence[Tokens]], name: str = "corpus") -> None:
        """``name`` says in signatures what the documents are."""
        self.name = name
        self._corpus = Corpus([()] * len(documents), documents).at_blanks
        self._rarity = _rarity(self._corpus)

    def __call__(self, corpus: Corpus) -> list[Array]:
        """The log inverse document frequencies (G,) of another corpus' n-grams, for n = 1 to 4.

        An n-gram that no document holds is as rare as one that a single document holds.
        """
        ours = self._corpus
        # The number here of each word there; -1 for those that no document holds, and likewise for n-grams.
        words = np.fromiter((ours.words.get(word, -1) for word in corpus.words), np.int64, len(corpus.words))
        shorter: Integers = np.zeros(1, np.int64)
        found = []
        for theirs, known, rarity in zip(corpus.ngrams, ours.ngrams, self._rarity, strict=True):
            start, last = np.divmod(theirs.keys, max(len(words), 1))
            there = (shorter[start] >= 0) & (words[last] >= 0)
            places, same = find(known.keys, np.where(there, shorter[start] * len(ours.words) + words[last], -1))
            shorter = np.where(same, places, -1)
            rarest = math.log(max(len(ours.references), 1))
            found.append(np.where(same, rarity[places], rarest) if len(rarity) else np.full(len(start), rarest))
        return found


class CiderD:
    """Section 4 of the paper with its clipping and length penalty, in which "length" counts bigrams.

    Without ``rarity``, n-grams are weighed by how many of the scored images' references hold them: the score depends
    on the set of images, and of a single image it would be 0, which is refused.
    """

    names = ("CIDEr-D",)

    def __init__(self, rarity: Rarity | None = None) -> None:
        self.rarity = rarity
        df = rarity.name if rarity else "corpus"
        self.settings = f"n:{ORDER}|sigma:{SIGMA:g}|df:{df}|version:2"

    def statistics(self, corpus: Corpus) -> Array:
        """(N, 2): the image's score, 0 to 10 as coco-caption has it, and 1."""
        if self.rarity is None and corpus.size < 2:
            raise DataError(
                "CIDEr-D weighs words by how few images they fit: of one image alone it is 0 whatever the caption; "
                "score at least 2, name a larger corpus for the document frequencies, or leave CIDEr-D out"
            )
        corpus = corpus.at_blanks
        rarity = self.rarity(corpus) if self.rarity else _rarity(corpus)
        pairs = list(zip(corpus.ngrams, rarity, strict=True))
        similarity = np.add.reduce([_cosines(corpus, ngrams, weights) for ngrams, weights in pairs]) / ORDER
        bigrams = np.maximum(corpus.lengths - 1, 0)
        owners = corpus.owners[corpus.size :]
        difference = bigrams[corpus.size :] - bigrams[owners]
        similarity *= np.exp(-(difference**2) / (2 * SIGMA**2))
        scores = 10 * sum_by(owners, corpus.size, similarity) / corpus.reference_counts
        return np.stack([scores, np.ones(corpus.size)], 1)

    def aggregate(self, sums: Array) -> dict[str, Array]:
        return {"CIDEr-D": 100 * sums[..., 0] / sums[..., 1]}


def _rarity(corpus: Corpus) -> list[Array]:
    """Log inverse document frequency of each n-gram among the references of a corpus, (G,), for n = 1 to 4."""
    images = len(corpus.references)
    found = []
    for ngrams in corpus.ngrams:
        border = np.searchsorted(ngrams.sentence, corpus.size)
        owner, ngram = corpus.owners[ngrams.sentence[border:]], ngrams.ngram[border:]
        distinct = max(len(ngrams.keys), 1)
        places = np.sort(owner * distinct + ngram)
        once = places[np.diff(places, prepend=-1) > 0]  # each n-gram once for each image
        frequency = np.bincount(once % distinct, minlength=len(ngrams.keys))
        found.append(math.log(max(images, 1)) - np.log(np.maximum(frequency, 1)))
    return found


def _cosines(corpus: Corpus, ngrams: Ngrams, rarity: Array) -> Array:
    """Clipped cosine (equation 4 of the paper) of each reference with its image's caption, (R,), for one order."""
    weights = ngrams.count * rarity[ngrams.ngram]
    norms = np.sqrt(sum_by(ngrams.sentence, len(corpus.lengths), weights**2))
    border = np.searchsorted(ngrams.sentence, corpus.size)
    distinct = max(len(ngrams.keys), 1)
    place = corpus.owners[ngrams.sentence] * distinct + ngrams.ngram
    at, same = find(place[:border], place[border:])  # a caption's sentence number is its image's
    references = weights[border:][same]
    dots = np.minimum(weights[:border][at[same]], references) * references
    products = sum_by(ngrams.sentence[border:][same] - corpus.size, len(corpus.lengths) - corpus.size, dots)
    scale = norms[corpus.owners[corpus.size :]] * norms[corpus.size :]
    cosines: Array = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return cosines
