"""The translation model: alignment, phrase table, language model, decoder and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing import get_context

import numpy as np

from captioner.errors import DataError
from eval.ngram import KneserNey
from eval.smt.alignment import Pair, align
from eval.smt.decoder import FEATURES, Decoder, Translation
from eval.smt.phrases import phrase_table
from eval.smt.tuning import Candidate, tune

Words = tuple[str, ...]
Sources = Sequence[tuple[Words, float]]
"""Possible tuples of a clip, as words, each with the log of its probability."""

ALL_FEATURES = (*FEATURES, "probability", "source words")
"""The features of a translation, and two of its source, which choose among several sources."""
START = np.array([0.2, 0.1, 0.1, 0.1, 0.5, 0.5, 0.0, 0.1, 0.5, 0.0])
"""Weights before tuning, in the order of ``ALL_FEATURES``."""
CANDIDATES = 40
"""Number of n-best translations per clip in tuning."""


@dataclass
class Translator:
    """A trained translation model."""

    decoder: Decoder
    weights: np.ndarray = field(default_factory=START.copy)
    """(10,), in the order of ``ALL_FEATURES``."""

    def translate(self, source: Sequence[str]) -> list[str]:
        """The best sentence for the words of a tuple."""
        return list(self.n_best(source, 1)[0].words)

    def n_best(self, source: Sequence[str], n: int) -> list[Translation]:
        """Up to ``n`` different sentences, best first."""
        return self.decoder.n_best(source, self.weights[: len(FEATURES)], n)

    def translate_all(self, clips: Sequence[Sources], processes: int = 1) -> list[list[str]]:
        """The best sentence for each clip over all its sources. Equal sources are translated only once."""
        with _translating(self.decoder, processes) as run:
            return [list(found[0].words) for found in _candidates(run, clips, self.weights, 1)]

    def tune(
        self, clips: Sequence[Sources], references: Sequence[Sequence[Sequence[str]]], seed: int = 0, processes: int = 1
    ) -> None:
        """Set the weights that give the highest BLEU-4 on ``clips``, each with its tokenized ``references``."""
        each = max(CANDIDATES // max(map(len, clips)), 5)
        tokens = [[tuple(one) for one in mine] for mine in references]
        with _translating(self.decoder, processes) as run:
            self.weights = tune(lambda weights: _candidates(run, clips, weights, each), tokens, self.weights, seed)


def train_smt(
    pairs: Iterable[Pair],
    *,
    sentences: Iterable[Words] | None = None,
    model: str = "ibm1",
    heuristic: str = "intersection",
    order: int = 4,
) -> Translator:
    """Train on pairs of (words of a tuple, words of a sentence); the weights are not yet tuned.

    The language model is trained on ``sentences``, by default those of all pairs, also with an empty tuple. Give each
    sentence once, even if it is in several pairs. ``DataError`` if there is nothing to align.
    """
    pairs = [(tuple(source), tuple(target)) for source, target in pairs if target]
    parallel = [pair for pair in pairs if pair[0]]
    if not parallel:
        raise DataError("no sentence has a tuple; translation is learned from pairs of both")
    table = phrase_table(parallel, align(parallel, model, heuristic))
    told = [target for _, target in pairs] if sentences is None else [tuple(words) for words in sentences if words]
    return Translator(Decoder(table, KneserNey(told, order, "<s>", "</s>")))


Run = Callable[[Sequence[Words], np.ndarray, int], Sequence[list[Translation]]]
"""The n best translations of sources by weights (8,)."""


@contextmanager
def _translating(decoder: Decoder, processes: int) -> Iterator[Run]:
    """A function that translates many sources, in this process or in several others."""
    if processes == 1:
        yield lambda sources, weights, n: [decoder.n_best(source, weights, n) for source in sources]
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _initialize_worker, (decoder,)) as pool:
        yield lambda sources, weights, n: list(pool.map(_n_best, sources, repeat(weights), repeat(n), chunksize=8))


_decoder: Decoder  # of a worker process


def _initialize_worker(decoder: Decoder) -> None:
    global _decoder
    _decoder = decoder


def _n_best(source: Words, weights: np.ndarray, n: int) -> list[Translation]:
    return _decoder.n_best(source, weights, n)


def _candidates(run: Run, clips: Sequence[Sources], weights: np.ndarray, each: int) -> list[list[Candidate]]:
    """All clips' translations, ``each`` of every source of a clip, the best first by ``weights`` (10,)."""
    distinct = sorted({source for clip in clips for source, _ in clip})
    translations = dict(zip(distinct, run(distinct, weights[: len(FEATURES)], each), strict=True))
    found = []
    for clip in clips:
        mine = [
            Candidate(one.words, np.append(one.features, (log_prob, len(source))))
            for source, log_prob in clip
            for one in translations[source]
        ]
        found.append(sorted(mine, key=lambda one: -float(one.features @ weights)))
    return found
