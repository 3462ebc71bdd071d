"""CIDEr-D (Vedantam et al. 2015) as coco-caption computes what it prints as "CIDEr"."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from captioner.metrics.base import Score, Tokens, signature

ORDER = 4
SIGMA = 6.0
Ngram = tuple[str, ...]
Counts = Counter[Ngram]


@dataclass(frozen=True)
class CiderStatistics:
    """N-gram counts (n = 1 to 4 together) of a picture's caption and of each of its references."""

    hypothesis: Counts
    references: tuple[Counts, ...]


@dataclass(frozen=True)
class Vector:
    """TF-IDF ``weights`` and their ``norms`` for each n; ``length`` in bigrams, which coco-caption counts."""

    weights: dict[Ngram, float]
    norms: tuple[float, ...]
    length: int


@dataclass(frozen=True)
class Rarity:
    """Log inverse document frequency, a document being all references of one picture."""

    known: dict[Ngram, float]
    """Of every n-gram in a reference."""
    unknown: float
    """Of all others: the log number of pictures."""

    @classmethod
    def of(cls, pictures: Iterable[Sequence[Counts]]) -> Rarity:
        """Measured over ``pictures``, each given by the n-gram counts of its references."""
        frequency: Counter[Ngram] = Counter()
        number = 0
        for references in pictures:
            frequency.update(set().union(*references))
            number += 1
        top = math.log(max(number, 1))
        return cls({ngram: top - math.log(count) for ngram, count in frequency.items()}, top)

    def vector(self, counts: Counts) -> Vector:
        """The n-grams of one caption, weighted."""
        weights = {}
        squares = [0.0] * ORDER
        length = 0
        for ngram, count in counts.items():
            weight = count * self.known.get(ngram, self.unknown)
            weights[ngram] = weight
            squares[len(ngram) - 1] += weight * weight
            if len(ngram) == 2:
                length += count
        return Vector(weights, tuple(map(math.sqrt, squares)), length)


class CiderD:
    """Section 4 of the paper with its clipping and length penalty.

    N-grams are weighed by how many pictures' references hold them, among the pictures that are scored: the score
    depends on the set of pictures, and on one picture alone it is 0.
    """

    version = "1"

    def __init__(self, tokenizer: str = "plain") -> None:
        self._tokenizer = tokenizer

    def statistics(self, hypothesis: Tokens, references: Sequence[Tokens]) -> CiderStatistics:
        return CiderStatistics(count_ngrams(hypothesis), tuple(map(count_ngrams, references)))

    def aggregate(self, stats: Sequence[CiderStatistics]) -> Score:
        sign = signature(
            self._tokenizer,
            [len(s.references) for s in stats],
            n=str(ORDER),
            sigma=f"{SIGMA:g}",
            df="corpus",
            version=self.version,
        )
        each = self.segments(stats)
        return Score("CIDEr-D", sum(each) / len(each) if each else 0.0, sign)

    def segments(self, stats: Sequence[CiderStatistics]) -> list[float]:
        """The score of each picture; their mean is the score."""
        rarity = Rarity.of(s.references for s in stats)
        return [score(rarity.vector(s.hypothesis), [rarity.vector(r) for r in s.references]) for s in stats]


def count_ngrams(tokens: Tokens) -> Counts:
    """How often each n-gram of ``tokens`` occurs, n = 1 to 4."""
    return Counter(_ngrams(tokens))


def score(hypothesis: Vector, references: Sequence[Vector]) -> float:
    """CIDEr-D of one caption."""
    return 10.0 * sum(_similarity(hypothesis, reference) for reference in references) / max(len(references), 1)


def _ngrams(tokens: Tokens) -> Iterable[Ngram]:
    for n in range(1, ORDER + 1):
        yield from zip(*(tokens[i:] for i in range(n)), strict=False)


def _similarity(hypothesis: Vector, reference: Vector) -> float:
    """Mean over n of the clipped cosine (equation 4 of the paper), times the Gaussian length penalty."""
    dots = [0.0] * ORDER
    for ngram, weight in hypothesis.weights.items():
        other = reference.weights.get(ngram)
        if other is not None:
            dots[len(ngram) - 1] += min(weight, other) * other
    cosines = (
        dot / (a * b) if a and b else 0.0 for dot, a, b in zip(dots, hypothesis.norms, reference.norms, strict=True)
    )
    difference = hypothesis.length - reference.length
    return sum(cosines) / ORDER * math.exp(-(difference**2) / (2 * SIGMA**2))
