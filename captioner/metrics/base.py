"""What a metric is: statistics for each picture first, one score from all of them second.

Keeping the two apart lets a significance test draw pictures again without counting again (as sacreBLEU does).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from captioner.errors import ConfigError, DataError
from captioner.text.tokenize import tokenizer as find_tokenizer

METRICS: dict[str, str] = {
    "bleu": "captioner.metrics.bleu:Bleu",
    "cider": "captioner.metrics.cider:CiderD",
}

Tokens = Sequence[str]
Stats = TypeVar("Stats")


@dataclass(frozen=True)
class Score:
    """A number with all that is needed to compare it.

    ``value`` is in the unit that papers print: BLEU in percent, CIDEr-D as coco-caption's (human captions near 1).
    ``signature`` names tokeniser, references per image, number of images and metric version; scores with different
    signatures must not be compared. ``parts`` are further numbers, such as the lower orders of BLEU.
    """

    name: str
    value: float
    signature: str
    parts: dict[str, float] = field(default_factory=dict)


class Metric(Protocol[Stats]):
    """Made with the tokeniser's name, which only enters the signature: metrics work on tokens."""

    def statistics(self, hypothesis: Tokens, references: Sequence[Tokens]) -> Stats:
        """What one picture contributes."""
        ...

    def aggregate(self, stats: Sequence[Stats]) -> Score:
        """The score of all pictures together."""
        ...


def signature(tokenizer: str, references: Sequence[int], **facts: str) -> str:
    """``images:5000|refs:5-7|tok:plain|...`` from the number of references of each picture and further facts."""
    low, high = min(references, default=0), max(references, default=0)
    refs = str(low) if low == high else f"{low}-{high}"
    facts = {"images": str(len(references)), "refs": refs, "tok": tokenizer, **facts}
    return "|".join(f"{key}:{fact}" for key, fact in facts.items())


def score_captions(
    hypotheses: Mapping[Any, str],
    references: Mapping[Any, Sequence[str]],
    metrics: Sequence[str] = ("bleu", "cider"),
    tokenizer: str = "plain",
) -> list[Score]:
    """One ``Score`` for each name in ``metrics`` (keys of ``METRICS``) over raw captions by picture.

    Both mappings must have the same keys and every picture at least one reference; else ``DataError``.
    """
    if hypotheses.keys() != references.keys():
        odd = sorted(map(str, hypotheses.keys() ^ references.keys()))
        raise DataError(f"captions and references are of different pictures: {', '.join(odd[:3])} ({len(odd)} in all)")
    if not hypotheses:
        raise DataError("there are no captions to score")
    bare = [str(key) for key, captions in references.items() if not captions]
    if bare:
        raise DataError(f"no reference caption for {', '.join(bare[:3])} ({len(bare)} in all)")
    cut = find_tokenizer(tokenizer)
    pairs = [(cut(text), [cut(reference) for reference in references[key]]) for key, text in hypotheses.items()]
    scores = []
    for name in metrics:
        metric = _find(name)(tokenizer)
        scores.append(metric.aggregate([metric.statistics(*pair) for pair in pairs]))
    return scores


def _find(name: str) -> Callable[[str], Metric[Any]]:
    if name not in METRICS:
        raise ConfigError(f"no metric {name!r}; there are: {', '.join(METRICS)}")
    module, _, attribute = METRICS[name].partition(":")
    found: Callable[[str], Metric[Any]] = getattr(importlib.import_module(module), attribute)
    return found
