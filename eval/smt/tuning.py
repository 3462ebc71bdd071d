"""Minimum error rate training (Och 2003), on a grid: the weights with the highest BLEU-4 on the val split.

The n-best translations under the current weights are scored once. Then one weight at a time is moved to where the
top-ranked candidates have the highest BLEU-4. Translation and tuning alternate until the score no longer rises. Och
searches each line exactly; steps of a few sizes, from several starts, reach the same score here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from captioner.errors import print_error
from captioner.metrics.bleu import Bleu
from captioner.metrics.corpus import Corpus

Words = tuple[str, ...]
STEPS = np.array([0.0, *(sign * size for size in (0.01, 0.03, 0.1, 0.3, 1.0) for sign in (1, -1))])
ROUNDS = 6
STARTS = 4
LEAST_GAIN = 0.05  # expected gain in BLEU-4 below which tuning stops


@dataclass(frozen=True)
class Candidate:
    """A candidate translation of a clip."""

    words: Words
    features: np.ndarray
    """(F,); the score under weights (F,) is their product."""


Translate = Callable[[np.ndarray], Sequence[Sequence[Candidate]]]


def tune(translate: Translate, references: Sequence[Sequence[Words]], weights: np.ndarray, seed: int = 0) -> np.ndarray:
    """Weights (F,), with magnitudes that sum to 1, whose best translations have the highest BLEU-4 that was found.

    ``translate`` gives each clip's candidates under any weights, best first; ``references`` are of the same clips.
    """
    rng = np.random.default_rng(seed)
    pool = _Pool(references)
    best, found = -1.0, weights
    for number in range(1, ROUNDS + 1):
        weights = weights / np.abs(weights).sum()
        candidates = translate(weights)
        score = _bleu(candidates, references)
        print_error(f"tuning, round {number}: BLEU-4 {score:.2f}")
        if score > best:
            best, found = score, weights
        if not pool.add(candidates):
            break
        starts = [weights, found, *(weights * rng.lognormal(0, 0.5, len(weights)) for _ in range(STARTS - 2))]
        expected, weights = max(
            (coordinate_ascent(*pool.arrays(), start, rng) for start in starts), key=lambda one: one[0]
        )
        if expected <= best + LEAST_GAIN:
            break
    return found


def coordinate_ascent(
    features: np.ndarray, statistics: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    """A local maximum of BLEU-4 along single weights: the score and the weights (F,).

    ``features`` (C, K, F) and ``statistics`` (C, K, 10) of the K candidates of each of C clips.
    """
    weights = weights / np.abs(weights).sum()
    active = np.flatnonzero(np.ptp(features, axis=1).any(0))  # features that differ between candidates of a clip
    best = -1.0
    gained = True
    while gained:
        gained = False
        for place in rng.permutation(active):
            scores = (features @ weights) + STEPS[:, None, None] * features[..., place]  # (S, C, K)
            chosen = scores.argmax(-1)  # (S, C)
            sums = statistics[np.arange(len(statistics)), chosen].sum(1)  # (S, 10)
            bleu = Bleu().aggregate(sums)["BLEU-4"]
            step = int(bleu.argmax())
            if bleu[step] > best + 1e-9:
                gained |= best >= 0
                best = float(bleu[step])
                weights[place] += STEPS[step]
    return best, weights


class _Pool:
    """All candidates of all rounds, with their BLEU statistics."""

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        self._references = references
        self._known: list[dict[tuple[Words, bytes], tuple[np.ndarray, np.ndarray]]] = [{} for _ in references]

    def add(self, candidates: Sequence[Sequence[Candidate]]) -> int:
        """Add ``candidates``; returns the number of new ones."""
        new = 0
        for known, mine, references in zip(self._known, candidates, self._references, strict=True):
            fresh = {(one.words, one.features.tobytes()): one for one in mine}
            fresh = {key: one for key, one in fresh.items() if key not in known}
            if fresh:
                corpus = Corpus([one.words for one in fresh.values()], [references] * len(fresh))
                rows = Bleu().statistics(corpus)
                known |= {key: (one.features, row) for (key, one), row in zip(fresh.items(), rows, strict=True)}
                new += len(fresh)
        return new

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Features (C, K, F) and statistics (C, K, 10); clips with fewer than K candidates repeat their first."""
        most = max(len(known) for known in self._known)
        rows = [[*known.values()] for known in self._known]
        rows = [row + row[:1] * (most - len(row)) for row in rows]
        features, statistics = (np.array([[one[part] for one in row] for row in rows]) for part in (0, 1))
        return features, statistics


def _bleu(candidates: Sequence[Sequence[Candidate]], references: Sequence[Sequence[Words]]) -> float:
    """BLEU-4, in percent, of each clip's first candidate."""
    corpus = Corpus([mine[0].words for mine in candidates], references)
    return float(Bleu().aggregate(Bleu().statistics(corpus).sum(0))["BLEU-4"])
