"""Our phrase decoder, compared with nltk's ``StackDecoder``: sentences per second, for tuples of a synthetic corpus.

Both have the same phrase table, language model, weights and stack size. nltk's merges no hypotheses, tries every
translation for each of them, and ends a sentence without the language model's score of the end.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from benchmarks.measure import Measurement, compare, rate
from captioner.optional import require
from eval.smt import Translator, train_smt
from eval.smt.decoder import FEATURES, Decoder

ACTIVITIES = {"take out": ("takes out", "gets"), "wash": ("washes", "rinses"), "cut": ("cuts", "slices")}
THINGS = ("knife", "carrot", "plum", "board", "bowl", "onion", "peeler", "pan", "egg", "leek")
PLACES = {"drawer": "from the drawer", "sink": "in the sink", "plate": "on a plate", "shelf": "off the shelf"}


def corpus(sentences: int, seed: int = 0) -> list[tuple[tuple[str, ...], list[str]]]:
    """Pairs of a tuple of three or four labels and a sentence."""
    draws = random.Random(seed)
    pairs = []
    for _ in range(sentences):
        activity, (thing, tool) = draws.choice(list(ACTIVITIES)), draws.sample(THINGS, 2)
        place, article = draws.choice(list(PLACES)), draws.choice(("the", "a"))
        words = ["the person", draws.choice(ACTIVITIES[activity]), article, thing]
        with_tool = draws.random() < 0.5
        words += ["with the", tool] if with_tool else []
        labels = (activity, *([tool] if with_tool else []), thing, place)
        pairs.append((labels, " ".join([*words, PLACES[place]]).split()))
    return pairs


class Model:
    """The language model with the interface that nltk's decoder needs."""

    def __init__(self, translator: Translator) -> None:
        self._decoder = fresh(translator)  # with its own cache
        self._weight = float(translator.weights[FEATURES.index("language")])

    def probability(self, phrase: tuple[str, ...]) -> float:
        return self._weight * self._decoder.language_score((), phrase)[0]

    def probability_change(self, hypothesis: Any, phrase: tuple[str, ...]) -> float:
        state = self._decoder.language.start
        for word in hypothesis.translation_so_far():
            state = self._decoder.language.step(state, word)[1]
        return self._weight * self._decoder.language_score(state, phrase)[0]


def fresh(translator: Translator) -> Decoder:
    """The translator's decoder, with an empty cache."""
    return Decoder(translator.decoder.table, translator.decoder.language, translator.decoder.stack)


def nltk_decoder(translator: Translator) -> Any:
    """nltk's decoder over the same table and weights."""
    translate = require("nltk.translate", "smt")
    weights = dict(zip(FEATURES, translator.weights, strict=False))
    table = translate.PhraseTable()
    for source, options in translator.decoder.table.items():
        for option in options:
            score = float(np.dot(option.features, translator.weights[:4])) + weights["phrases"]
            table.add(source, option.target, score)
    decoder = translate.StackDecoder(table, Model(translator))
    decoder.stack_size = translator.decoder.stack
    decoder.word_penalty = -weights["words"]
    decoder.distortion_factor = math.exp(-weights["distortion"])
    return decoder


def measure(sentences: int = 600, tuples: int = 40, rounds: int = 3) -> list[Measurement]:
    """Sentences per second of ours over nltk's, both with empty caches at first."""
    translator = train_smt(corpus(sentences))
    sources = list(dict.fromkeys(labels for labels, _ in corpus(4 * tuples, seed=1)))[:tuples]
    weights = translator.weights[: len(FEATURES)]

    def ours() -> None:
        decoder = fresh(translator)
        for source in sources:
            decoder.n_best(source, weights)

    def nltk() -> None:
        decoder = nltk_decoder(translator)
        for source in sources:
            decoder.translate(source)

    left, right = rate(len(sources), ours), rate(len(sources), nltk)
    return [compare("translation over nltk's", "sentences/s", left, right, rounds=rounds, warm_up=False)]
