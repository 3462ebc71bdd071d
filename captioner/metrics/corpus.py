"""Captions and references as arrays: every distinct word and n-gram of a corpus has an integer id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[str]
Integers = NDArray[np.int64]
ORDER = 4
"""Maximum n-gram order."""


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of one order, with one entry for each distinct n-gram of each sentence, in the order of sentences."""

    sentence: Integers
    """Index of each entry's sentence, (E,), ascending."""
    ngram: Integers
    """Id of each entry's n-gram, (E,), from 0; ascending within a sentence."""
    count: Integers
    """How often each entry's n-gram occurs in its sentence, (E,)."""
    keys: Integers
    """For each n-gram (G,), ascending: the id of its first n - 1 words times the vocabulary size, plus the id of its
    last word."""


class Corpus:
    """The captions of N images (sentences 0 to N - 1) and their R references (sentences N to N + R - 1)."""

    def __init__(self, hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
        """The tokens of one caption and of any number of references for each image."""
        self.hypotheses, self.references = hypotheses, references
        sentences = [*hypotheses, *chain.from_iterable(references)]
        self.size = len(hypotheses)
        self.lengths: Integers = np.fromiter(map(len, sentences), np.int64, len(sentences))
        """Number of tokens of each sentence, (N + R,)."""
        self.reference_counts: Integers = np.fromiter(map(len, references), np.int64, len(references))
        """Number of references of each image, (N,)."""
        self.owners: Integers = np.concatenate(
            [np.arange(self.size), np.repeat(np.arange(len(references)), self.reference_counts)]
        )
        """The image of each sentence, (N + R,)."""
        self.words: dict[str, int] = {}
        numbers = self.words
        total = int(self.lengths.sum())
        self.tokens: Integers = np.fromiter(
            (numbers.setdefault(word, len(numbers)) for word in chain.from_iterable(sentences)), np.int64, total
        )
        """Word ids of all sentences, concatenated, (T,)."""
        self._remaining: Integers = np.repeat(self.lengths.cumsum(), self.lengths) - np.arange(total)
        """Number of words from each position to the end of its sentence, (T,)."""

    @cached_property
    def split_at_spaces(self) -> Corpus:
        """The corpus with tokens split at spaces inside them: the PTB tokenizer keeps a no-break space in ``22 3/4``.
        coco-caption's BLEU and CIDEr-D split such tokens, its ROUGE-L does not."""
        if not any(len(word.split()) > 1 for word in self.words):
            return self
        hypotheses = [" ".join(tokens).split() for tokens in self.hypotheses]
        return Corpus(hypotheses, [[" ".join(tokens).split() for tokens in row] for row in self.references])

    @cached_property
    def ngrams(self) -> tuple[Ngrams, ...]:
        """The n-grams of order 1 to ``ORDER``."""
        sentence = np.repeat(np.arange(len(self.lengths)), self.lengths)  # (T,)
        number = np.zeros_like(self.tokens)  # (T,), id of the n-gram that begins at each word; at first the empty one
        found = []
        for order in range(1, ORDER + 1):
            starts = np.flatnonzero(self._remaining >= order)
            made_of = number[starts] * len(self.words) + self.tokens[starts + order - 1]
            keys, numbers = np.unique(made_of, return_inverse=True)
            number[starts] = numbers
            distinct = max(len(keys), 1)
            places, counts = np.unique(sentence[starts] * distinct + numbers, return_counts=True)
            found.append(Ngrams(places // distinct, places % distinct, counts, keys))
        return tuple(found)


def sum_by(groups: Integers, size: int, values: NDArray[Any]) -> NDArray[np.float64]:
    """Sums (size,) of the values (E,) of each group (E,)."""
    return np.bincount(groups, values, size).astype(np.float64)  # bincount gives integers if there is nothing to add


def lookup(keys: Integers, wanted: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """The index of each of ``wanted`` (E,) in ascending ``keys`` (G,), and whether it is among them, (E,)."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, (keys[places] == wanted if len(keys) else np.zeros(len(wanted), bool))
