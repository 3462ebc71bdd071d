"""Phrase-based stack decoding (Koehn 2004, Pharaoh) over a log-linear model (Och and Ney 2002).

``nltk.translate.StackDecoder`` is not used, because it lacks four things: the end of the sentence in the language
model, which decides where a sentence with many unaligned words may stop; several weighted features; recombination of
hypotheses, without which a stack holds few different sentences; and n-best lists, which tuning needs. It also has only
a tenth of the speed (``python -m benchmarks.run smt``).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from eval.ngram import KneserNey
from eval.smt.phrases import Option, PhraseTable

Words = tuple[str, ...]

FEATURES = ("phrase", "phrase inverse", "lexical", "lexical inverse", "language", "words", "phrases", "distortion")
"""The four features of ``Option``, the language model's log probability, the numbers of words and of phrases, and minus
the number of source words jumped over."""
UNKNOWN = (-10.0,) * 4  # features of a word that is copied because it has no translation


@dataclass(frozen=True)
class Translation:
    """A sentence with its features."""

    words: Words
    features: np.ndarray
    """(8,), in the order of ``FEATURES``."""
    score: float
    """The weighted sum of the features."""


@dataclass(eq=False)
class _Node:
    """Recombined hypotheses: all cover the same source words and end at the same one in the same model state."""

    covered: int
    end: int
    state: Words
    score: float = -np.inf
    arcs: list[_Arc] = field(default_factory=list)


class _Arc(NamedTuple):
    """An extension of a node by a phrase."""

    previous: _Node
    option: Option
    gain: float
    language: float
    jump: int


class Decoder:
    """Phrase table, language model, and decoding over both."""

    def __init__(self, table: PhraseTable, language: KneserNey[str], stack: int = 20, options: int = 30) -> None:
        """``stack``: nodes kept for each number of covered words; ``options``: translations tried for each phrase.

        The best node is extended by all options, the n-th best by the first ``stack`` / n.
        """
        self.table = table
        self.language = language
        self.stack = stack
        self.options = options
        self._scores: dict[tuple[Words, Words], tuple[float, Words]] = {}

    def n_best(self, source: Sequence[str], weights: np.ndarray, n: int = 1) -> list[Translation]:
        """Up to ``n`` different sentences, best first, by ``weights`` (8,) in the order of ``FEATURES``.

        Only for short sources such as tuples: time and memory double with each word of ``source``.
        """
        decoding = _Decoding(self, tuple(source), tuple(map(float, weights)))
        found: dict[Words, Translation] = {}
        for arcs in itertools.islice(_paths(decoding.run()), 20 * n):  # a sentence has many segmentations into phrases
            translation = _translation(arcs, weights)
            found.setdefault(translation.words, translation)
            if len(found) == n:
                break
        return list(found.values())

    def language_score(self, state: Words, words: Words) -> tuple[float, Words]:
        """``KneserNey.score``, cached."""
        key = (state, words)
        known = self._scores.get(key)
        if known is None:
            known = self._scores[key] = self.language.score(state, words)
        return known


class _Decoding:
    """The decoding of one source."""

    def __init__(self, decoder: Decoder, source: Words, weights: tuple[float, ...]) -> None:
        self.decoder = decoder
        self.source = source
        self.weights = weights
        self.options = self._options()
        self.future = self._future()

    def run(self) -> _Node:
        """Return the node after the end of the sentence."""
        size = len(self.source)
        stacks: list[dict[tuple[int, int, Words], _Node]] = [{} for _ in range(size + 1)]
        first = _Node(0, 0, self.decoder.language.start, 0.0)
        stacks[0][0, 0, first.state] = first
        for stack in stacks[:-1]:
            rank = lambda node: node.score + self.future[node.covered]  # noqa: E731
            for place, node in enumerate(heapq.nlargest(self.decoder.stack, stack.values(), key=rank), start=1):
                self._expand(node, self.decoder.stack // place, stacks)
        last = _Node((1 << size) - 1, size, ())
        for node in stacks[-1].values():
            log_prob = self.decoder.language.step(node.state, self.decoder.language.end)[0]
            _add_arc(last, _Arc(node, Option((), (0.0,) * 4), self.weights[4] * log_prob, log_prob, 0))
        return last

    def _expand(self, node: _Node, most: int, stacks: list[dict[tuple[int, int, Words], _Node]]) -> None:
        for (a, b, mask), options in self.options.items():
            if node.covered & mask:
                continue
            covered = node.covered | mask
            jump = -abs(a - node.end)
            stack = stacks[covered.bit_count()]
            for option, static in options[:most]:
                language, state = self.decoder.language_score(node.state, option.target)
                gain = static + self.weights[4] * language + self.weights[7] * jump
                key = covered, b, state
                reached = stack.get(key)
                if reached is None:
                    reached = stack[key] = _Node(covered, b, state)
                _add_arc(reached, _Arc(node, option, gain, language, jump))

    def _options(self) -> dict[tuple[int, int, int], list[tuple[Option, float]]]:
        """Options by (from, to, mask) of a source phrase, each with the part of its score that needs no context."""
        found = {}
        size = len(self.source)
        for a, b in itertools.combinations(range(size + 1), 2):
            options = self.decoder.table.get(self.source[a:b], [])
            if not options and b - a == 1:
                options = [Option(tuple(self.source[a].split()), UNKNOWN)]
            scored = [(option, self._static_score(option)) for option in options]
            scored.sort(key=lambda one: -self._isolated_score(*one))
            if scored:
                found[a, b, (1 << b) - (1 << a)] = scored[: self.decoder.options]
        return found

    def _static_score(self, option: Option) -> float:
        known = sum(w * f for w, f in zip(self.weights, option.features, strict=False))
        return known + self.weights[5] * len(option.target) + self.weights[6]

    def _isolated_score(self, option: Option, static: float) -> float:
        """Estimated score of an option, without the words before it."""
        return static + self.weights[4] * self.decoder.language_score((), option.target)[0]

    def _future(self) -> list[float]:
        """Future cost estimate: for each set of covered words, the best score of the others, without context."""
        full = (1 << len(self.source)) - 1
        best = {mask: self._isolated_score(*options[0]) for (_, _, mask), options in self.options.items()}
        future = [0.0] * (full + 1)
        for covered in range(full - 1, -1, -1):
            low = ~covered & (covered + 1)  # its first uncovered word must be covered by some phrase
            future[covered] = max(
                score + future[covered | mask] for mask, score in best.items() if mask & low and not mask & covered
            )
        return future


def _add_arc(node: _Node, arc: _Arc) -> None:
    node.arcs.append(arc)
    node.score = max(node.score, arc.previous.score + arc.gain)


def _paths(last: _Node) -> Iterator[list[_Arc]]:
    """Yield all paths from the start to ``last``, best first, each as its arcs in order.

    A* search backwards, with the best score of a node as the exact heuristic.
    """
    order = itertools.count()  # breaks ties: first come, first served
    queue: list[tuple[float, int, float, _Node, Any]] = [(-last.score, next(order), 0.0, last, None)]
    while queue:
        _, _, behind, node, path = heapq.heappop(queue)
        if not node.arcs:
            arcs = []
            while path:
                arc, path = path
                arcs.append(arc)
            yield arcs
        for arc in node.arcs:
            gained = behind + arc.gain
            heapq.heappush(queue, (-gained - arc.previous.score, next(order), gained, arc.previous, (arc, path)))


def _translation(arcs: Sequence[_Arc], weights: np.ndarray) -> Translation:
    words = tuple(word for arc in arcs for word in arc.option.target)
    features = np.zeros(len(FEATURES))
    for arc in arcs:
        features[:4] += arc.option.features
    features[4:] = (
        sum(arc.language for arc in arcs), len(words), len(arcs) - 1, sum(arc.jump for arc in arcs)
    )  # fmt: skip
    return Translation(words, features, float(features @ weights))
