"""Systems scored side by side: on all references, and beside people on all but the one that a person wrote."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from captioner.data.records import Record
from captioner.errors import CaptionerError, DataError, UsageError
from captioner.metrics import References, Scored
from captioner.metrics.base import digest
from captioner.metrics.diversity import diversity
from captioner.metrics.significance import Estimate, compare_systems
from eval.systems import Run, is_people, without

Estimates = dict[str, dict[str, Estimate]]
CERTAIN = 0.05


@dataclass(frozen=True)
class Side:
    """Systems scored on the same references; p-values are against the first of them."""

    estimates: Estimates
    """By system and score."""
    scored: dict[str, list[Scored]]

    @property
    def baseline(self) -> str:
        return next(iter(self.estimates))

    @property
    def metrics(self) -> list[str]:
        return list(self.estimates[self.baseline])

    @property
    def signatures(self) -> list[str]:
        found = self.scored[self.baseline][0].scores.values()
        return [f"{score.name}|{score.signature}" for score in found]

    def p(self, system: str, metric: str) -> float | None:
        """By approximate randomization; by paired bootstrap where the systems have different numbers of runs."""
        one = self.estimates[system][metric]
        return one.p_bootstrap if one.p_randomization is None else one.p_randomization


@dataclass(frozen=True)
class Judged:
    """All that a report says in numbers."""

    records: Sequence[Record]
    systems: dict[str, list[Run]]
    """The baseline first; people are not among them."""
    references: References
    main: Side
    people: Side | None
    """People against every system, on one reference less; None where no captions of people were given."""

    @property
    def best(self) -> str:
        """The system with the highest CIDEr-D, or whatever comes last of the scores."""
        metric = "CIDEr-D" if "CIDEr-D" in self.main.metrics else self.main.metrics[-1]
        return max(self.systems, key=lambda name: self.main.estimates[name][metric].score)


@dataclass(frozen=True)
class Scorer:
    """How captions are scored."""

    split: str
    metrics: Sequence[str]
    tokenizer: str
    told: set[str] = field(default_factory=set)
    """What was said about metrics that cannot run here."""

    def references(self, texts: Mapping[str, Sequence[str]], **facts: str) -> References:
        return References(texts, self.tokenizer, split=self.split, **facts)

    def score(self, references: References, runs: Sequence[Run]) -> list[Scored]:
        """Each run; a metric that cannot run here is left out, which is said once on stderr."""
        return [references.score(run.captions, self.metrics, self._tell) for run in runs]

    def _tell(self, error: CaptionerError) -> None:
        if str(error) not in self.told:
            self.told.add(str(error))
            print(f"note: {error}", file=sys.stderr)


def judge(
    systems: Mapping[str, Sequence[Run]], records: Sequence[Record], scorer: Scorer, baseline: str = ""
) -> Judged:
    """Score ``systems`` on ``records``; ``baseline`` names what the others are held against, the first by default."""
    people = [runs for runs in systems.values() if is_people(runs, records)]
    own = {name: list(runs) for name, runs in systems.items() if runs not in people}
    if not own:
        raise DataError("there are only people's captions; give a system to hold against them")
    if baseline and baseline not in own:
        raise UsageError(f"--baseline {baseline}: no such system; there are: {', '.join(own)}")
    first = baseline or next(iter(own))
    own = {first: own[first], **own}
    references = scorer.references({record.image_id: record.captions for record in records})
    scored = {name: scorer.score(references, runs) for name, runs in own.items()}
    main = Side(compare_systems(scored), scored)
    return Judged(records, own, references, main, _beside_people(people[0], own, records, scorer) if people else None)


def _beside_people(
    people: Sequence[Run], systems: Mapping[str, Sequence[Run]], records: Sequence[Record], scorer: Scorer
) -> Side:
    """Each person's caption in turn, and the systems, on the references of the others; scores are means over turns."""
    everything = digest({record.image_id: record.captions for record in records})
    name = people[0].name
    scored: dict[str, list[Scored]] = {name: [], **{system: [] for system in systems}}
    for turn in people:
        references = scorer.references(without(records, turn.captions), turns=str(len(people)))
        facts = {**references.facts, "data": everything}  # turns differ in which reference is out, and are one score
        for system, runs in {name: [turn], **systems}.items():
            scored[system] += [replace(one, facts=facts) for one in scorer.score(references, runs)]
    return Side(compare_systems(scored), scored)


def by_length(judged: Judged, metric: str, bins: int = 5) -> tuple[list[tuple[str, int]], dict[str, list[float]]]:
    """``metric`` of each system over images of like mean reference length: (label, images) of bins, scores."""
    mean = np.array([np.mean([len(tokens) for tokens in own]) for own in judged.references.tokens.values()])  # (N,)
    edges = np.unique(np.round(np.quantile(mean, np.linspace(0, 1, bins + 1)[1:-1]), 1))
    place = np.searchsorted(edges, mean)  # (N,)
    used = np.unique(place)
    weights = (place == used[:, None]).astype(np.float64)  # (B, N)
    limits = [f"{mean.min():g}", *(f"{edge:g}" for edge in edges), f"{mean.max():g}"]
    labels = [f"{'' if bin == 0 else 'over '}{limits[bin]} to {limits[bin + 1]}" for bin in used]
    scores = {
        name: list(np.mean([run.reweighted(weights)[metric] for run in runs], 0))
        for name, runs in judged.main.scored.items()
    }
    return list(zip(labels, weights.sum(1).astype(int).tolist(), strict=True)), scores


def describe(judged: Judged, training: Sequence[Record]) -> dict[str, dict[str, float]]:
    """What each system's captions are like, as ``captioner.metrics.diversity`` says; means over its runs."""
    cut = judged.references.tokenize
    known = [cut(caption) for record in training for caption in record.captions]
    wanted = list(judged.references.tokens.values())
    found = {}
    for name, runs in judged.systems.items():
        each = [diversity([cut(text) for text in run.captions.values()], wanted, known) for run in runs]
        found[name] = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    return found
