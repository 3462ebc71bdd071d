"""Compare systems on all references, and with humans on all references but one (leave one out)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from captioner.data.records import Captioned
from captioner.errors import CaptionerError, DataError, UsageError, print_error
from captioner.metrics import References, Scored
from captioner.metrics.base import digest
from captioner.metrics.diversity import diversity
from captioner.metrics.significance import Estimate, compare_systems
from eval.systems import Run, is_human, leave_one_out

Estimates = dict[str, dict[str, Estimate]]
ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """Systems scored on the same references; p-values are against the first one."""

    estimates: Estimates
    """Estimates by system and score."""
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
        """p-value by approximate randomization, or by paired bootstrap if the systems' numbers of runs differ."""
        one = self.estimates[system][metric]
        return one.p_bootstrap if one.p_randomization is None else one.p_randomization


@dataclass(frozen=True)
class Evaluation:
    """All results of a report."""

    records: Sequence[Captioned]
    systems: dict[str, list[Run]]
    """Systems without humans, the baseline first."""
    references: References
    main: Comparison
    human: Comparison | None
    """Humans and all systems, with one reference left out; None if no human captions were given."""

    @property
    def best(self) -> str:
        """The system with the highest CIDEr-D, or with the highest last score if there is no CIDEr-D."""
        metric = "CIDEr-D" if "CIDEr-D" in self.main.metrics else self.main.metrics[-1]
        return max(self.systems, key=lambda name: self.main.estimates[name][metric].score)


@dataclass(frozen=True)
class Scorer:
    """The settings for scoring captions."""

    split: str
    metrics: Sequence[str]
    tokenizer: str
    warned: set[str] = field(default_factory=set)
    """Warnings already given about metrics that cannot run here."""

    def references(self, texts: Mapping[str, Sequence[str]], **metadata: str) -> References:
        return References(texts, self.tokenizer, split=self.split, **metadata)

    def score(self, references: References, runs: Sequence[Run]) -> list[Scored]:
        """Score each run; a metric that cannot run here is left out, with one warning on stderr."""
        return [references.score(run.captions, self.metrics, self._warn) for run in runs]

    def _warn(self, error: CaptionerError) -> None:
        if str(error) not in self.warned:
            self.warned.add(str(error))
            print_error(f"note: {error}")


def evaluate(
    systems: Mapping[str, Sequence[Run]], records: Sequence[Captioned], scorer: Scorer, baseline: str = ""
) -> Evaluation:
    """Score ``systems`` on ``records`` and compare them with ``baseline``, the first by default."""
    human = {name: runs for name, runs in systems.items() if is_human(runs, records)}
    own = {name: list(runs) for name, runs in systems.items() if name not in human}
    if not own:
        raise DataError("there are only human captions; give a system to compare with them")
    if baseline and baseline not in own:
        raise UsageError(f"--baseline {baseline}: no such system; there are: {', '.join(own)}")
    first = baseline or next(iter(own))
    own = {first: own[first], **own}
    references = scorer.references({record.image_id: record.captions for record in records})
    scored = {name: scorer.score(references, runs) for name, runs in own.items()}
    main = Comparison(compare_systems(scored), scored)
    people = [run for runs in human.values() for run in runs]
    name = next(iter(human), "") if len(human) == 1 else "people"
    beside = _beside_humans(name, people, own, records, scorer) if people else None
    return Evaluation(records, own, references, main, beside)


def _beside_humans(
    name: str,
    human: Sequence[Run],
    systems: Mapping[str, Sequence[Run]],
    records: Sequence[Captioned],
    scorer: Scorer,
) -> Comparison:
    """Score each human caption in turn, as ``name``, and the systems, on the other references: means over the turns."""
    everything = digest({record.image_id: record.captions for record in records})
    scored: dict[str, list[Scored]] = {name: [], **{system: [] for system in systems}}
    for turn in human:
        references = scorer.references(leave_one_out(records, turn.captions), turns=str(len(human)))
        metadata = {**references.metadata, "data": everything}  # one signature for all turns
        for system, runs in {name: [turn], **systems}.items():
            scored[system] += [replace(one, metadata=metadata) for one in scorer.score(references, runs)]
    return Comparison(compare_systems(scored), scored)


def by_length(
    evaluation: Evaluation, metric: str, bins: int = 5
) -> tuple[list[tuple[str, int]], dict[str, list[float]]]:
    """``metric`` of each system by mean reference length: (label, number of images) of each bin, and the scores."""
    mean = np.array([np.mean([len(tokens) for tokens in own]) for own in evaluation.references.tokens.values()])  # (N,)
    edges = np.unique(np.round(np.quantile(mean, np.linspace(0, 1, bins + 1)[1:-1]), 1))
    place = np.searchsorted(edges, mean)  # (N,)
    used = np.unique(place)
    weights = (place == used[:, None]).astype(np.float64)  # (B, N)
    limits = [f"{mean.min():g}", *(f"{edge:g}" for edge in edges), f"{mean.max():g}"]
    labels = [f"{'' if bin == 0 else 'over '}{limits[bin]} to {limits[bin + 1]}" for bin in used]
    scores = {
        name: list(np.mean([run.reweighted(weights)[metric] for run in runs], 0))
        for name, runs in evaluation.main.scored.items()
    }
    return list(zip(labels, weights.sum(1).astype(int).tolist(), strict=True)), scores


def caption_diversity(evaluation: Evaluation, training: Sequence[Captioned]) -> dict[str, dict[str, float]]:
    """``captioner.metrics.diversity`` of each system's captions, means over its runs."""
    tokenize = evaluation.references.tokenize
    known = tokenize([caption for record in training for caption in record.captions])
    wanted = list(evaluation.references.tokens.values())
    found = {}
    for name, runs in evaluation.systems.items():
        each = [diversity(tokenize(list(run.captions.values())), wanted, known) for run in runs]
        found[name] = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    return found
