"""The metric protocol, and scoring captions by several metrics at once.

Every metric first counts and then aggregates, as in sacreBLEU: ``statistics`` returns one row of numbers per image,
and ``aggregate`` turns any sum of rows into scores. So a significance test resamples images without counting again, the
score of one image is the aggregate of one row, and a thousand resamples are one matrix product::

    scored = score_captions({"1.jpg": "a dog"}, {"1.jpg": ["A dog runs.", "The dog."], ...}, ["bleu", "rouge"])
    scored["BLEU-4"].value                      # 0 to 100
    scored.per_image()["ROUGE-L"]               # (N,), in the order of scored.images
    scored.reweighted(weights)["BLEU-4"]        # (W,), for weights (W, N) of the images

Scores are percentages: 25.5 where coco-caption prints 0.255, and a CIDEr-D of 74.5 where it prints 0.745. CIDEr-D may
exceed 100. To add a metric: one class, one line in ``METRICS``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from captioner.errors import CaptionerError, DataError, MissingDependency
from captioner.metrics.corpus import Corpus
from captioner.registry import resolve
from captioner.text.tokenizers import DEFAULT as DEFAULT_TOKENIZER
from captioner.text.tokenizers import Tokenizer, tokenize_groups
from captioner.text.tokenizers import tokenizer as find_tokenizer

METRICS: dict[str, str] = {
    "bleu": "captioner.metrics.bleu:Bleu",
    "cider": "captioner.metrics.cider:CiderD",
    "rouge": "captioner.metrics.rouge:RougeL",
    "meteor": "captioner.metrics.java:Meteor",
    "spice": "captioner.metrics.java:Spice",
}
FAST = ("bleu", "cider", "rouge")
"""The metrics that need no Java."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A score with the information that is needed to compare it.

    ``value`` is in percent. ``signature`` gives the numbers of images and of references per image, the tokenizer, the
    case, a digest of the references and the metric's version; scores are comparable only if their signatures match.
    ``parts`` are further numbers of the same metric, such as BLEU's brevity penalty.
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
    """One or more scores computed from the same statistics.

    Raises ``MissingDependency`` if it cannot run, ``DataError`` if it is undefined for the captions.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its scores, as they are printed: ``("ROUGE-L",)``."""
        ...

    @property
    def settings(self) -> str:
        """The metric's part of the signature, the version last: ``"beta:1.2|version:1"``."""
        ...

    def statistics(self, corpus: Corpus) -> Array:
        """The contribution of each image, (N, K)."""
        ...

    def aggregate(self, sums: Array) -> dict[str, Array]:
        """Scores in percent (...) by name, and optionally parts, from sums (..., K) of images' statistics."""
        ...


@dataclass(frozen=True)
class Scored:
    """One system's statistics, and its scores over all images, for each image, or over weighted images."""

    images: tuple[Any, ...]
    """The images' keys, in the order of the statistics' rows."""
    metrics: tuple[Metric, ...]
    statistics: tuple[Array, ...]
    """(N, K) for each of ``metrics``; each metric has its own K."""
    metadata: Mapping[str, str]
    """The part of the signatures that all scores share."""

    @cached_property
    def scores(self) -> dict[str, Score]:
        """All scores over all images, by name."""
        found: dict[str, Score] = {}
        for metric, rows in zip(self.metrics, self.statistics, strict=True):
            numbers = {name: float(value) for name, value in metric.aggregate(rows.sum(0)).items()}
            parts = {name: value for name, value in numbers.items() if name not in metric.names}
            signature = "|".join([*(f"{key}:{value}" for key, value in self.metadata.items()), metric.settings])
            found |= {name: Score(name, numbers[name], signature, parts) for name in metric.names}
        return found

    def __getitem__(self, name: str) -> Score:
        return self.scores[name]

    def per_image(self) -> dict[str, Array]:
        """The scores of each image alone, (N,). Their mean is the score over all images, except for BLEU and METEOR."""
        return self.aggregate(self.statistics)

    def reweighted(self, weights: Array) -> dict[str, Array]:
        """The scores (W,) for each row of ``weights`` (W, N), which says how often each image counts."""
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

    ``captions``: raw references by image; raises ``DataError`` for an image without any. ``metadata`` is added to every
    signature (``split="test"``).
    """

    def __init__(
        self, captions: Mapping[Any, Sequence[str]], tokenizer: str = DEFAULT_TOKENIZER, **metadata: str
    ) -> None:
        if not captions:
            raise DataError("there are no captions to score")
        _check(captions, "no reference caption for", lambda texts: not texts)
        _check(captions, "references must be a list of sentences, not one text, for", lambda t: isinstance(t, str))
        self.tokenize = find_tokenizer(tokenizer)
        tokens = tokenize_groups(captions.values(), self.tokenize)
        self.tokens: dict[Any, list[list[str]]] = dict(zip(captions, tokens, strict=True))
        counts = sorted({len(texts) for texts in captions.values()})
        self.metadata = {
            "images": str(len(captions)),
            "refs": "-".join(map(str, [counts[0], counts[-1]][: len(counts)])),
            "tok": f"{tokenizer}-{tokenizer_version(self.tokenize)}",
            "case": "lc",
            **metadata,
            "data": digest(captions),
        }

    def score(
        self,
        hypotheses: Mapping[Any, str],
        metrics: Sequence[str | Metric] = FAST,
        on_missing: Callable[[CaptionerError], None] | None = None,
    ) -> Scored:
        """Score raw ``hypotheses``, one for each image (else ``DataError``), by ``metrics``, given as names or objects.

        If a metric cannot run here or is undefined for these captions, ``on_missing`` is called with the error and the
        metric is left out; without ``on_missing`` the error is raised.
        """
        if hypotheses.keys() != self.tokens.keys():
            differing = sorted(map(str, hypotheses.keys() ^ self.tokens.keys()))
            raise DataError(
                f"captions and references differ in {len(differing)} images, such as {', '.join(differing[:3])}"
            )
        images = tuple(self.tokens)
        corpus = Corpus(self.tokenize([hypotheses[image] for image in images]), list(self.tokens.values()))
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
        return Scored(images, tuple(used), tuple(statistics), self.metadata)


def score_captions(
    hypotheses: Mapping[Any, str],
    references: Mapping[Any, Sequence[str]],
    metrics: Sequence[str | Metric] = FAST,
    tokenizer: str = DEFAULT_TOKENIZER,
) -> Scored:
    """Score one system's raw captions against raw references, both by image; raises the errors of ``References``."""
    return References(references, tokenizer).score(hypotheses, metrics)


def find_metric(name: str) -> Metric:
    """Create a metric by its name in ``METRICS``; raises ``ConfigError``, which lists the names, for any other."""
    metric: Metric = resolve(METRICS, name, "metric")()
    return metric


def digest(captions: Mapping[Any, Sequence[str]]) -> str:
    """Eight hexadecimal digits of the SHA-256 of raw references; image names and order do not change it."""
    rows = sorted(sorted(map(str.strip, texts)) for texts in captions.values())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:8]


def tokenizer_version(tokenize: Tokenizer) -> str:
    """``VERSION`` of the module that defines a tokenizer; 1 if it has none."""
    return str(getattr(sys.modules[tokenize.__module__], "VERSION", "1"))


def _check(captions: Mapping[Any, Sequence[str]], problem: str, is_wrong: Callable[[Any], bool]) -> None:
    wrong = [str(key) for key, texts in captions.items() if is_wrong(texts)]
    if wrong:
        raise DataError(f"{problem} {', '.join(wrong[:3])} ({len(wrong)} in all)")
