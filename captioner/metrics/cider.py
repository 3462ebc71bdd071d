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
class _Vector:
    """TF-IDF ``weights`` and their ``norms`` for each n; ``length`` in bigrams, which coco-caption counts."""

    weights: dict[Ngram, float]
    norms: tuple[float, ...]
    length: int


class CiderD:
    """Section 4 of the paper with its clipping and length penalty.

    N-grams are weighed by how many pictures' references hold them, among the pictures that are scored: the score
    depends on the set of pictures, and on one picture alone it is 0.
    """

    version = "1"

    def __init__(self, tokenizer: str = "plain") -> None:
        self._tokenizer = tokenizer

    def statistics(self, hypothesis: Tokens, references: Sequence[Tokens]) -> CiderStatistics:
        return CiderStatistics(_count(hypothesis), tuple(_count(reference) for reference in references))

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
        frequency = Counter(ngram for s in stats for ngram in set().union(*s.references))
        top = math.log(max(len(stats), 1))
        inverse = {ngram: top - math.log(count) for ngram, count in frequency.items()}
        scores = []
        for s in stats:
            hypothesis = _vector(s.hypothesis, inverse, top)
            similarity = sum(_similarity(hypothesis, _vector(counts, inverse, top)) for counts in s.references)
            scores.append(10.0 * similarity / max(len(s.references), 1))
        return scores


def _count(tokens: Tokens) -> Counts:
    return Counter(_ngrams(tokens))


def _ngrams(tokens: Tokens) -> Iterable[Ngram]:
    for n in range(1, ORDER + 1):
        yield from zip(*(tokens[i:] for i in range(n)), strict=False)


def _vector(counts: Counts, inverse: dict[Ngram, float], top: float) -> _Vector:
    """``inverse`` is the log inverse document frequency of every n-gram in a reference; ``top`` that of others."""
    weights = {}
    squares = [0.0] * ORDER
    length = 0
    for ngram, count in counts.items():
        weight = count * inverse.get(ngram, top)
        weights[ngram] = weight
        squares[len(ngram) - 1] += weight * weight
        if len(ngram) == 2:
            length += count
    return _Vector(weights, tuple(map(math.sqrt, squares)), length)


def _similarity(hypothesis: _Vector, reference: _Vector) -> float:
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
