"""Scores as text and JSON, for ``captioner score`` and ``captioner compare``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from captioner.errors import UsageError
from captioner.metrics.base import METRICS, Metric, Score, Scored
from captioner.metrics.cider import CiderD, DocumentFrequency
from captioner.metrics.significance import Estimate
from captioner.tables import footnote, render

SCALE = "percent: 0 to 100, CIDEr-D up to 1000"
ALPHA = 0.05
"""p-values below this are marked."""

Estimates = Mapping[str, Mapping[str, Estimate]]
"""Estimates by system and score; the first system is the baseline."""


def select_metrics(names: str, document_frequency: DocumentFrequency | None = None) -> list[str | Metric]:
    """The metrics in a comma-separated list, or all if it is empty; CIDEr-D uses ``document_frequency``."""
    selected = [name.strip() for name in names.split(",") if name.strip()] or list(METRICS)
    if len(set(selected)) < len(selected):
        raise UsageError(f"--metrics {names}: names a metric twice")
    return [CiderD(document_frequency) if name == "cider" and document_frequency else name for name in selected]


def signature_lines(scores: Mapping[str, Score]) -> list[str]:
    """Lines such as ``BLEU-1,BLEU-2|images:...``: one per signature, with the scores that share it."""
    names: dict[str, list[str]] = {}
    for name, score in scores.items():
        names.setdefault(score.signature, []).append(name)
    return [f"{','.join(shared)}|{signature}" for signature, shared in names.items()]


def score_table(name: str, scored: Scored, diversity: Mapping[str, float], style: str) -> str:
    """One system's scores with their scale, the diversity of its captions, and the signatures."""
    row = [name, *(f"{score.value:.2f}" for score in scored.scores.values())]
    notes = [SCALE, diversity_line(diversity), *signature_lines(scored.scores)]
    table = render(["", *scored.scores], [row], style=style)
    return "\n".join([table, "", *(footnote(note, style) for note in notes)])


def score_json(scored: Scored, diversity: Mapping[str, float], provenance: Mapping[str, Any]) -> str:
    """The scores, diversity and provenance as one JSON object."""
    scores = {
        name: {"value": score.value, "fraction": score.fraction, "signature": score.signature, **score.parts}
        for name, score in scored.scores.items()
    }
    return json.dumps({"scores": scores, "diversity": dict(diversity), "provenance": dict(provenance)})


def per_image_lines(scored: Scored, captions: Mapping[str, str]) -> str:
    """Each image's caption and scores, one JSON object per line."""
    scores = {name: values.tolist() for name, values in scored.per_image().items()}
    return "".join(
        json.dumps({"image": image, "caption": captions[image], **{name: scores[name][row] for name in scores}}) + "\n"
        for row, image in enumerate(scored.images)
    )


def diversity_line(diversity: Mapping[str, float]) -> str:
    """A sentence on the values of ``captioner.metrics.diversity``."""
    novel = f", {diversity['novel']:.1f} % in no training caption" if "novel" in diversity else ""
    return (
        f"captions: {diversity['distinct']:.1f} % distinct{novel}, {diversity['length']:.2f} tokens long, "
        f"{diversity['words']:.0f} words ({diversity['vocabulary']:.1f} % of the references')"
    )


def comparison_table(estimates: Estimates, signatures: Sequence[str], style: str) -> str:
    """All scores of all systems with their intervals, differences from the baseline and p-values."""
    baseline, *_ = estimates
    header = ["score", "system", "value", "95 % interval", "difference", "p bootstrap", "p randomization"]
    rows = []
    for score in estimates[baseline]:
        for system, scores in estimates.items():
            one = scores[score]
            value = f"{one.score:.2f}" + (f" ± {one.spread:.2f}" if one.spread is not None else "")
            difference = "" if system == baseline else f"{one.score - estimates[baseline][score].score:+.2f}"
            interval = f"{one.low:.2f} to {one.high:.2f}"
            rows.append([score, system, value, interval, difference, _p(one.p_bootstrap), _p(one.p_randomization)])
    notes = [f"{SCALE}; differences and p-values against {baseline}; * p < {ALPHA}"]
    runs = {name: next(iter(scores.values())).runs for name, scores in estimates.items()}
    if max(runs.values()) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in runs.items())
        notes.append(f"± is the standard deviation over a system's runs: {counts}")
    return "\n".join([render(header, rows, 2, style), "", *(footnote(note, style) for note in [*notes, *signatures])])


def comparison_json(estimates: Estimates, signatures: Sequence[str]) -> str:
    """The comparison as one JSON object."""
    systems = {
        system: {score: dataclasses.asdict(estimate) for score, estimate in scores.items()}
        for system, scores in estimates.items()
    }
    return json.dumps({"baseline": next(iter(estimates)), "systems": systems, "signatures": list(signatures)})


def _p(value: float | None) -> str:
    """A p-value; the star comes first, so that digits are aligned."""
    return "" if value is None else f"{'*' if value < ALPHA else ''}{value:.4f}"
