"""What a metric is, and how captions are scored by several of them at once.

Every metric counts first and adds up second, as sacreBLEU's do: ``statistics`` gives a row of numbers for each image,
``aggregate`` turns the sum of any rows into scores. So a significance test draws images again without counting
again, the score of one image is that of a sum of one row, and all scores of a thousand draws are one matrix product::

    scored = score_captions({"1.jpg": "a dog"}, {"1.jpg": ["A dog runs.", "The dog."], ...}, ["bleu", "rouge"])
    scored["BLEU-4"].value                      # 0 to 100
    scored.of_images()["ROUGE-L"]             # (N,), in the order of scored.images
    scored.weighed(weights)["BLEU-4"]           # (W,), for weights (W, N) of the images

Scores are percentages: 25.5 where coco-caption prints 0.255, and a CIDEr-D of 74.5 where it prints 0.745. CIDEr-D may
exceed 100. To add a metric: one class, one line in ``METRICS``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from captioner.errors import CaptionerError, ConfigError, DataError, MissingDependency
from captioner.metrics.corpus import Corpus, Tokens
from captioner.text.tokenizers import DEFAULT as DEFAULT_TOKENIZER
from captioner.text.tokenizers import tokenizer as find_tokenizer

METRICS: dict[str, str] = {
    "bleu": "captioner.metrics.bleu:Bleu",
    "cider": "captioner.metrics.cider:CiderD",
    "rouge": "captioner.metrics.rouge:RougeL",
    "meteor": "captioner.metrics.java:Meteor",
    "spice": "captioner.metrics.java:Spice",
}
FAST = ("bleu", "cider", "rouge")
"""Those that need no Java."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A number with all that is needed to compare it.

    ``value`` is in percent. ``signature`` names images, references per image, tokenizer, case, a digest of the
    references and the metric's version; scores with different signatures must not be compared. ``parts`` are further
    numbers of the same metric, such as the brevity penalty of BLEU.
    """

    name: str
    value: float
    signature: str
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        """The number as coco-caption prints it: ``value`` / 100."""
        return self.value / 100


class Metric(Protocol):
    """One or more scores over the same statistics.

    It raises ``MissingDependency`` where it cannot run, ``DataError`` where it says nothing about the captions.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The scores it gives, as they are printed: ``("ROUGE-L",)``."""
        ...

    @property
    def settings(self) -> str:
        """What its signature says beside what all share, the version last: ``"beta:1.2|version:1"``."""
        ...

    def statistics(self, corpus: Corpus) -> Array:
        """What each image contributes, (N, K)."""
        ...

    def aggregate(self, sums: Array) -> dict[str, Array]:
        """From sums (..., K) of images' statistics each of ``names`` (...), in percent, and perhaps further parts."""
        ...


@dataclass(frozen=True)
class Scored:
    """One system's captions, counted: scores over all images, one by one, and over any weighting of them."""

    images: tuple[Any, ...]
    """The images' keys, in the order of the rows of ``statistics``."""
    metrics: tuple[Metric, ...]
    statistics: tuple[Array, ...]
    """(N, K) for each of ``metrics``; K is the metric's own."""
    facts: Mapping[str, str]
    """What the signatures of all scores share."""

    @cached_property
    def scores(self) -> dict[str, Score]:
        """Every score by its name, over all images."""
        found: dict[str, Score] = {}
        for metric, rows in zip(self.metrics, self.statistics, strict=True):
            numbers = {name: float(value) for name, value in metric.aggregate(rows.sum(0)).items()}
            parts = {name: value for name, value in numbers.items() if name not in metric.names}
            signature = "|".join([*(f"{key}:{fact}" for key, fact in self.facts.items()), metric.settings])
            found |= {name: Score(name, numbers[name], signature, parts) for name in metric.names}
        return found

    def __getitem__(self, name: str) -> Score:
        return self.scores[name]

    def of_images(self) -> dict[str, Array]:
        """The scores of each image by itself, (N,). Their mean is the score, but for BLEU and METEOR."""
        return self.aggregate(self.statistics)

    def weighed(self, weights: Array) -> dict[str, Array]:
        """The scores (W,) of each row of ``weights`` (W, N): how often each image counts."""
        return self.aggregate([weights @ rows for rows in self.statistics])

    def aggregate(self, sums: Sequence[Array]) -> dict[str, Array]:
        """The scores (...) from sums (..., K) of each metric's statistics."""
        found: dict[str, Array] = {}
        for metric, rows in zip(self.metrics, sums, strict=True):
            numbers = metric.aggregate(rows)
            found |= {name: numbers[name] for name in metric.names}
        return found


class References:
    """The references of a set of images, tokenized once for any number of systems.

    ``captions``: raw references by image; each image needs at least one, else ``DataError``. ``facts`` are added to
    every signature (``split="test"``).
    """

    def __init__(self, captions: Mapping[Any, Sequence[str]], tokenizer: str = DEFAULT_TOKENIZER, **facts: str) -> None:
        if not captions:
            raise DataError("there are no captions to score")
        _refuse(captions, "no reference caption for", lambda texts: not texts)
        _refuse(captions, "references must be a list of sentences, not one text, for", lambda t: isinstance(t, str))
        self._cut = find_tokenizer(tokenizer)
        self.tokens: dict[Any, list[list[str]]] = {k: [self._cut(t) for t in texts] for k, texts in captions.items()}
        counts = sorted({len(texts) for texts in captions.values()})
        self.facts = {
            "images": str(len(captions)),
            "refs": "-".join(map(str, [counts[0], counts[-1]][: len(counts)])),
            "tok": f"{tokenizer}-{tokenizer_version(self._cut)}",
            "case": "lc",
            **facts,
            "data": digest(captions),
        }

    def score(
        self,
        hypotheses: Mapping[Any, str],
        metrics: Sequence[str | Metric] = FAST,
        on_missing: Callable[[CaptionerError], None] | None = None,
    ) -> Scored:
        """Count raw ``hypotheses``, one for each image (else ``DataError``), for ``metrics``: names or objects.

        ``on_missing`` is told of a metric that cannot run here or says nothing about these captions, which is then left
        out; without it that is raised.
        """
        if hypotheses.keys() != self.tokens.keys():
            odd = sorted(map(str, hypotheses.keys() ^ self.tokens.keys()))
            raise DataError(f"captions and references differ in {len(odd)} images, such as {', '.join(odd[:3])}")
        images = tuple(self.tokens)
        corpus = Corpus([self._cut(hypotheses[image]) for image in images], list(self.tokens.values()))
        used, statistics = [], []
        for wanted in metrics:
            try:
                metric = find_metric(wanted) if isinstance(wanted, str) else wanted
                statistics.append(metric.statistics(corpus))
            except (MissingDependency, DataError) as error:
                if on_missing is None:
                    raise
                on_missing(error)
            else:
                used.append(metric)
        return Scored(images, tuple(used), tuple(statistics), self.facts)

    def tokenize(self, text: str) -> list[str]:
        """``text`` cut as the references are."""
        return self._cut(text)


def score_captions(
    hypotheses: Mapping[Any, str],
    references: Mapping[Any, Sequence[str]],
    metrics: Sequence[str | Metric] = FAST,
    tokenizer: str = DEFAULT_TOKENIZER,
) -> Scored:
    """Score one system's raw captions against raw references, both by image; see ``References`` for the errors."""
    return References(references, tokenizer).score(hypotheses, metrics)


def find_metric(name: str) -> Metric:
    """A new metric by its name in ``METRICS``; ``ConfigError`` lists the names there are."""
    if name not in METRICS:
        raise ConfigError(f"no metric {name!r}; there are: {', '.join(METRICS)}")
    module, _, attribute = METRICS[name].partition(":")
    found: Metric = getattr(importlib.import_module(module), attribute)()
    return found


def digest(captions: Mapping[Any, Sequence[str]]) -> str:
    """Eight hexadecimal digits of the SHA-256 of raw references, whatever the images' names and the order."""
    rows = sorted(sorted(map(str.strip, texts)) for texts in captions.values())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:8]


def tokenizer_version(cut: Callable[[str], Tokens]) -> str:
    """``VERSION`` of the module that a tokenizer is from; 1 where it has none."""
    return str(getattr(sys.modules[cut.__module__], "VERSION", "1"))


def _refuse(captions: Mapping[Any, Sequence[str]], problem: str, is_wrong: Callable[[Any], bool]) -> None:
    wrong = [str(key) for key, texts in captions.items() if is_wrong(texts)]
    if wrong:
        raise DataError(f"{problem} {', '.join(wrong[:3])} ({len(wrong)} in all)")
