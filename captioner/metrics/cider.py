"""CIDEr-D (Vedantam et al. 2015) as in coco-caption, which prints it as "CIDEr"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from captioner.errors import DataError
from captioner.metrics.base import Array, digest
from captioner.metrics.corpus import ORDER, Corpus, Integers, Ngrams, Tokens, lookup, sum_by
from captioner.text.tokenizers import Tokenizer, tokenize_groups

SIGMA = 6.0


class DocumentFrequency:
    """Document frequencies of n-grams; each document is the tokens of all references of one image."""

    def __init__(self, documents: Sequence[Sequence[Tokens]], name: str = "corpus") -> None:
        """``name`` identifies the documents in signatures."""
        self.name = name
        self._corpus = Corpus([()] * len(documents), documents).split_at_spaces
        self._idf = _idf(self._corpus)

    @classmethod
    def of_references(cls, captions: Mapping[Any, Sequence[str]], tokenize: Tokenizer, name: str) -> DocumentFrequency:
        """The document frequencies of raw references by image; their digest is added to ``name``."""
        return cls(tokenize_groups(captions.values(), tokenize), f"{name}-{digest(captions)}")

    def idf(self, corpus: Corpus) -> list[Array]:
        """Log inverse document frequencies (G,) of another corpus' n-grams, for n = 1 to 4.

        An n-gram that is in no document counts as one that is in a single document.
        """
        ours = self._corpus
        # The id here of each of the corpus' words, -1 if in no document; likewise for n-grams.
        words = np.fromiter((ours.words.get(word, -1) for word in corpus.words), np.int64, len(corpus.words))
        prefix: Integers = np.zeros(1, np.int64)
        found = []
        for theirs, known, idf in zip(corpus.ngrams, ours.ngrams, self._idf, strict=True):
            start, last = np.divmod(theirs.keys, max(len(words), 1))
            there = (prefix[start] >= 0) & (words[last] >= 0)
            places, same = lookup(known.keys, np.where(there, prefix[start] * len(ours.words) + words[last], -1))
            prefix = np.where(same, places, -1)
            highest = math.log(max(len(ours.references), 1))
            found.append(np.where(same, idf[places], highest) if len(idf) else np.full(len(start), highest))
        return found


class CiderD:
    """Section 4 of the paper with its clipping and length penalty, where "length" is the number of bigrams.

    By default the document frequencies are those of the scored references, so the score depends on the set of images.
    For a single image it would always be 0, so ``DataError`` is raised.
    """

    names = ("CIDEr-D",)

    def __init__(self, document_frequency: DocumentFrequency | None = None) -> None:
        self.document_frequency = document_frequency
        df = document_frequency.name if document_frequency else "corpus"
        self.settings = f"n:{ORDER}|sigma:{SIGMA:g}|df:{df}|version:2"

    def statistics(self, corpus: Corpus) -> Array:
        """(N, 2): the image's score, 0 to 10 as in coco-caption, and 1."""
        if self.document_frequency is None and corpus.size < 2:
            raise DataError(
                "CIDEr-D is 0 for a single image, whatever the caption, because of its document frequencies; score at "
                "least 2 images, use the document frequencies of a larger corpus, or leave CIDEr-D out"
            )
        corpus = corpus.split_at_spaces
        idf = self.document_frequency.idf(corpus) if self.document_frequency else _idf(corpus)
        pairs = list(zip(corpus.ngrams, idf, strict=True))
        similarity = np.add.reduce([_cosines(corpus, ngrams, weights) for ngrams, weights in pairs]) / ORDER
        bigrams = np.maximum(corpus.lengths - 1, 0)
        owners = corpus.owners[corpus.size :]
        difference = bigrams[corpus.size :] - bigrams[owners]
        similarity *= np.exp(-(difference**2) / (2 * SIGMA**2))
        scores = 10 * sum_by(owners, corpus.size, similarity) / corpus.reference_counts
        return np.stack([scores, np.ones(corpus.size)], 1)

    def aggregate(self, sums: Array) -> dict[str, Array]:
        return {"CIDEr-D": 100 * sums[..., 0] / sums[..., 1]}


def _idf(corpus: Corpus) -> list[Array]:
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


def _cosines(corpus: Corpus, ngrams: Ngrams, idf: Array) -> Array:
    """Clipped cosine (equation 4 of the paper) of each reference with its image's caption, (R,), for one order."""
    weights = ngrams.count * idf[ngrams.ngram]
    norms = np.sqrt(sum_by(ngrams.sentence, len(corpus.lengths), weights**2))
    border = np.searchsorted(ngrams.sentence, corpus.size)
    distinct = max(len(ngrams.keys), 1)
    place = corpus.owners[ngrams.sentence] * distinct + ngrams.ngram
    at, same = lookup(place[:border], place[border:])  # a caption's sentence number is its image's
    references = weights[border:][same]
    dots = np.minimum(weights[:border][at[same]], references) * references
    products = sum_by(ngrams.sentence[border:][same] - corpus.size, len(corpus.lengths) - corpus.size, dots)
    scale = norms[corpus.owners[corpus.size :]] * norms[corpus.size :]
    cosines: Array = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return cosines
