"""Weights that make the translations of val score best: minimum error rate training (Och 2003), on a grid.

The n best translations under the weights so far are scored once; then weights are moved, one at a time, to where the
sentences that would then be first have the highest BLEU-4. With the new weights it is translated again, until
nothing is gained. Och follows every line to the end; steps of a few sizes, from several starts, come as far here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from captioner.metrics.bleu import Bleu
from captioner.metrics.corpus import Corpus

Words = tuple[str, ...]
STEPS = np.array([0.0, *(sign * size for size in (0.01, 0.03, 0.1, 0.3, 1.0) for sign in (1, -1))])
ROUNDS = 6
STARTS = 4
LEAST_GAIN = 0.05  # of BLEU-4, that another round must promise


@dataclass(frozen=True)
class Candidate:
    """A translation that a clip could get."""

    words: Words
    features: np.ndarray
    """(F,); the score under weights (F,) is their product."""


Translate = Callable[[np.ndarray], Sequence[Sequence[Candidate]]]


def tune(translate: Translate, references: Sequence[Sequence[Words]], weights: np.ndarray, seed: int = 0) -> np.ndarray:
    """Weights (F,), of sum of magnitudes 1, whose best translations have the highest BLEU-4 that was found.

    ``translate`` gives every clip's candidates under any weights, the best first; ``references`` are of the same clips.
    """
    draws = np.random.default_rng(seed)
    pool = _Pool(references)
    best, found = -1.0, weights
    for number in range(1, ROUNDS + 1):
        weights = weights / np.abs(weights).sum()
        candidates = translate(weights)
        score = _bleu(candidates, references)
        print(f"tuning, round {number}: BLEU-4 {score:.2f}", file=sys.stderr)
        if score > best:
            best, found = score, weights
        if not pool.add(candidates):
            break
        starts = [weights, found, *(weights * draws.lognormal(0, 0.5, len(weights)) for _ in range(STARTS - 2))]
        promised, weights = max((climb(*pool.arrays(), start, draws) for start in starts), key=lambda one: one[0])
        if promised <= best + LEAST_GAIN:
            break
    return found


def climb(
    features: np.ndarray, statistics: np.ndarray, weights: np.ndarray, draws: np.random.Generator
) -> tuple[float, np.ndarray]:
    """BLEU-4 and weights (F,) at a place from which no step along one weight leads higher.

    ``features`` (C, K, F) and ``statistics`` (C, K, 10) of the K candidates of each of C clips.
    """
    weights = weights / np.abs(weights).sum()
    matters = np.flatnonzero(np.ptp(features, axis=1).any(0))  # what differs between candidates of a clip
    best = -1.0
    gained = True
    while gained:
        gained = False
        for place in draws.permutation(matters):
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
    """All candidates of all rounds, scored."""

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        self._references = references
        self._known: list[dict[tuple[Words, bytes], tuple[np.ndarray, np.ndarray]]] = [{} for _ in references]

    def add(self, candidates: Sequence[Sequence[Candidate]]) -> int:
        """How many of ``candidates`` are new."""
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
    """BLEU-4, in percent, of every clip's first candidate."""
    corpus = Corpus([mine[0].words for mine in candidates], references)
    return float(Bleu().aggregate(Bleu().statistics(corpus).sum(0))["BLEU-4"])
