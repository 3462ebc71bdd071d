"""The sections of a report; each is a function from an evaluation to blocks of a page."""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from captioner.data.images import open_image
from captioner.data.records import Captioned
from captioner.provenance import provenance
from eval import figures
from eval.evaluation import ALPHA, Comparison, Evaluation, by_length, caption_diversity
from eval.page import Block, Card, Cards, Code, Figure, Heading, Table, Text
from eval.published import Setting, differences, read_tables
from eval.systems import Run

CAPTION_TASKS = ("captions", "video description")
"""Tasks for which a report includes published scores."""
SHOWN = ("BLEU-4", "CIDEr-D")
"""Scores that have a panel of their own."""
MARKS = f"▲ better, ▼ worse than the baseline with p < {ALPHA:g}"
TESTED = (
    "Intervals: 95 %, 1,000 bootstrap resamples of the images. p-values: approximate randomization, 10,000 trials; "
    "paired bootstrap where systems have different numbers of runs; not corrected for the number of comparisons. "
    "They are about the choice of images, not about training with another seed."
)


def summary(evaluation: Evaluation) -> list[Block]:
    """One sentence: the best system, its score and its lead."""
    comparison, best, base = evaluation.main, evaluation.best, evaluation.main.baseline
    metric = "CIDEr-D" if "CIDEr-D" in comparison.metrics else comparison.metrics[-1]
    one = comparison.estimates[best][metric]
    text = f"Best by {metric}: {best} with {one.score:.1f} (95 % interval {one.low:.1f} to {one.high:.1f})"
    if best != base:
        gap = one.score - comparison.estimates[base][metric].score
        text += f", {gap:.1f} above {base} ({format_p(comparison.p(best, metric))})"
    count = len(evaluation.records)
    return [Text(f"{text}. {count:,} images. All scores are percentages; CIDEr-D may exceed 100.")]


def results(evaluation: Evaluation) -> list[Block]:
    """The table of all scores."""
    comparison = evaluation.main
    several = any(len(runs) > 1 for runs in evaluation.systems.values())
    notes = [
        f"Baseline: {comparison.baseline}. {MARKS}.",
        "± is the standard deviation over runs." if several else "",
        TESTED,
    ]
    strong = frozenset({list(comparison.estimates).index(evaluation.best)})
    return [
        Heading("Scores"),
        _scores(comparison, {name: _runs(runs) for name, runs in evaluation.systems.items()}, strong),
        Text(" ".join(filter(None, notes)), note=True),
    ]


def gaps(comparison: Comparison) -> list[Block]:
    """Differences from the baseline with their p-values."""
    rows = []
    for name in list(comparison.estimates)[1:]:
        cells = [name]
        for metric in comparison.metrics:
            gap = comparison.estimates[name][metric].score - comparison.estimates[comparison.baseline][metric].score
            cells.append(f"{gap:+.1f}".replace("-", "−") + f"\n{format_p(comparison.p(name, metric))}")
        rows.append(cells)
    return (
        [Heading(f"Differences from {comparison.baseline}", 3), Table(["system", *comparison.metrics], rows)]
        if rows
        else []
    )


def charts(evaluation: Evaluation) -> list[Block]:
    metrics = [name for name in SHOWN if name in evaluation.main.metrics] or evaluation.main.metrics[:1]
    svg = figures.bars(evaluation.main.estimates, metrics)
    return [Figure("scores", svg, "Scores with 95 % intervals over the choice of images; the baseline is gray.")]


def beside_humans(evaluation: Evaluation) -> list[Block]:
    """Humans and systems with one reference left out, so that both are scored on the same references."""
    if evaluation.human is None:
        return []
    comparison = evaluation.human
    turns = len(comparison.scored[comparison.baseline])
    note = (
        f"Each of {turns} people's captions in turn is scored against the others, and so is each system; means over "
        f"the turns. These are fewer references than above: do not compare the two tables. "
        f"{MARKS.replace('the baseline', 'people')}."
    )
    return [Heading("Beside people"), _scores(comparison, {}, frozenset({0})), Text(note, note=True), *gaps(comparison)]


def lengths(evaluation: Evaluation) -> list[Block]:
    metric = "BLEU-4" if "BLEU-4" in evaluation.main.metrics else evaluation.main.metrics[0]
    bins, scores = by_length(evaluation, metric)
    rows = [[name, *(f"{value:.1f}" for value in values)] for name, values in scores.items()]
    return [
        Heading(f"{metric} by length"),
        Figure("lengths", figures.lengths(bins, scores, metric), f"{metric} over images of like reference length."),
        Table(["words a reference", *(label for label, _ in bins)], rows),
    ]


def curves(evaluation: Evaluation) -> list[Block]:
    """The dev scores during training, for runs whose folder has a log."""
    logs = {name: [run.log for run in runs if run.log] for name, runs in evaluation.systems.items()}
    logs = {name: runs for name, runs in logs.items() if runs}
    if not logs:
        return []
    note = "Scores on dev during training, with the decoding of the training configuration, whose beam may be smaller."
    return [Heading("Learning curves"), Figure("curves", figures.curves(logs), note)]


def diversity(evaluation: Evaluation, training: Sequence[Captioned]) -> list[Block]:
    """Diversity of each system's captions."""
    found = caption_diversity(evaluation, training)
    columns = {
        "distinct": "different captions (%)",
        "novel": "not in training (%)",
        "vocabulary": "of the references' words (%)",
        "words": "different words",
        "length": "words a caption",
    }
    keys = [key for key in columns if key in next(iter(found.values()))]
    rows = [
        [name, *(f"{values[key]:.{0 if key == 'words' else 1}f}" for key in keys)] for name, values in found.items()
    ]
    return [Heading("What the captions are like"), Table(["system", *(columns[key] for key in keys)], rows)]


def examples(evaluation: Evaluation, number: int, images: Mapping[str, Path] | None) -> list[Block]:
    """The best, median and worst images by the best system's score of each image, with ``images`` by id."""
    if not number:
        return []
    name = evaluation.best
    run, scored = evaluation.systems[name][0], evaluation.main.scored[name][0]
    metric = "CIDEr-D" if "CIDEr-D" in evaluation.main.metrics else evaluation.main.metrics[-1]
    scores = scored.per_image()[metric]
    order = np.argsort(-scores, kind="stable")
    middle = max((len(order) - number) // 2, 0)
    groups = {"best": order[:number], "median": order[middle : middle + number], "worst": order[::-1][:number]}
    label = f" ({run.label})" if run.label else ""
    blocks: list[Block] = [Heading(f"Best, median and worst captions of {name}{label} by {metric}")]
    for title, places in groups.items():
        blocks.append(Heading(title.capitalize(), 3))
        chosen = [
            (evaluation.records[place], f"{metric} {scores[place]:.1f}", _captions_of(evaluation, name, place))
            for place in places
        ]
        if images is None:
            header = ["image", metric, "who says what"]
            blocks.append(Table(header, [_example_row(*one) for one in chosen], words=1))
        else:
            cards = [
                Card(_thumbnail(images.get(record.image_id)), top, lines, record.image_id)
                for record, top, lines in chosen
            ]
            blocks.append(Cards(cards))
    return blocks


def published(evaluation: Evaluation, name: str, split: str) -> list[Block]:
    """Published scores on the same data, and the reasons why they are not comparable."""
    keys = dict.fromkeys(_short(key) for runs in evaluation.systems.values() for run in runs for key in run.backbones)
    metadata = evaluation.references.metadata
    ours = Setting(split, len(evaluation.records), metadata["tok"].split("-")[0], metadata["refs"], ", ".join(keys))
    blocks: list[Block] = [Heading("Published")]
    tables = [table for task in CAPTION_TASKS for table in read_tables(name, task)]
    metrics = [
        metric for metric in evaluation.main.metrics if any(metric in row.values for t in tables for row in t.rows)
    ]
    rows = []
    for table in tables:
        for row in table.rows:
            values = [row.values.get(metric) for metric in metrics]
            cells = ["–" if value is None else f"{value:.1f}" for value in values]
            notes = ". ".join(filter(None, [row.note, table.note]))
            source = table.citation + (f"\n{notes}" if notes else "")
            rows.append([row.system, *cells, source, "; ".join(differences(table, row, ours)) or "nothing known"])
    header = ["system", *metrics, "source", "differs from ours in"]
    blocks.append(Table(header, rows, words=2))
    blocks.append(Text("Numbers of papers, under other conditions: for orientation, not for ranking.", note=True))
    return blocks


def signatures(evaluation: Evaluation) -> list[Block]:
    lines = list(evaluation.main.signatures)
    if evaluation.human is not None:
        lines += ["", "beside people:", *evaluation.human.signatures]
    return [Heading("Signatures"), Code("\n".join(lines))]


def reproduce(evaluation: Evaluation, arguments: Sequence[str]) -> list[Block]:
    """The commands behind the page, and the provenance of the runs."""
    commands = [shlex.join(["python", "-m", "eval.report", *arguments])]
    commands += [run.command for runs in evaluation.systems.values() for run in runs if run.command]
    origins = [_origin(name, run) for name, runs in evaluation.systems.items() for run in runs if run.metadata]
    made = ", ".join(f"{key} {value}" for key, value in provenance().items())
    blocks: list[Block] = [
        Heading("To reproduce"),
        Text("This page, and the captions of each model:"),
        Code("\n".join(commands)),
    ]
    if origins:
        blocks += [Text("What was read:"), Code("\n".join(origins))]
    return [*blocks, Text(f"Made with {made}.", note=True)]


def _origin(name: str, run: Run) -> str:
    metadata = [f"{key} {value[:16] if key == 'sha256' else value}" for key, value in run.metadata.items()]
    return "  ".join(filter(None, [name, run.label, *metadata]))


def _scores(comparison: Comparison, runs: Mapping[str, str], strong: frozenset[int]) -> Table:
    several = any(runs.values())
    rows = []
    for name, scores in comparison.estimates.items():
        cells = [f"{name}\n{runs[name]}" if runs.get(name) else name]
        for metric, one in scores.items():
            spread = f" ± {one.spread:.1f}" if one.spread is not None and several else ""
            cells.append(f"{_mark(comparison, name, metric)}{one.score:.1f}{spread}\n[{one.low:.1f}, {one.high:.1f}]")
        rows.append(cells)
    return Table(["system", *comparison.metrics], rows, strong=strong)


def _mark(comparison: Comparison, name: str, metric: str) -> str:
    p = comparison.p(name, metric)
    if name == comparison.baseline or p is None or p >= ALPHA:
        return ""
    better = comparison.estimates[name][metric].score > comparison.estimates[comparison.baseline][metric].score
    return "▲ " if better else "▼ "


def format_p(value: float | None) -> str:
    """``p = 0.012``; empty for None."""
    return "" if value is None else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _runs(runs: Sequence[Run]) -> str:
    """``seeds 0, 1`` from the labels of a system's runs; empty for a single run without a seed."""
    labels = [run.label.split() for run in runs if run.label]
    if not labels:
        return ""
    return f"{labels[0][0]}{'s' if len(labels) > 1 else ''} {', '.join(number for _, number in labels)}"


def _short(backbone: str) -> str:
    """``b4`` for ``local:records/b4.yaml``; other keys unchanged."""
    return Path(backbone).stem if backbone.startswith("local:") else backbone


def _captions_of(evaluation: Evaluation, name: str, place: int) -> list[tuple[str, str]]:
    """The captions of an image by the system, the baseline and three humans."""
    record = evaluation.records[place]
    names = dict.fromkeys([name, evaluation.main.baseline])
    lines = [(one, evaluation.systems[one][0].captions[record.image_id]) for one in names]
    return [*lines, *(("" if number else "people", caption) for number, caption in enumerate(record.captions[:3]))]


def _example_row(record: Captioned, top: str, lines: Sequence[tuple[str, str]]) -> list[str]:
    return [record.image_id, top.split()[-1], " · ".join(f"{who}: {text}" if who else text for who, text in lines)]


def _thumbnail(path: Path | None) -> bytes:
    """A small JPEG; empty without an image."""
    if path is None:
        return b""
    image = open_image(path)
    image.thumbnail((360, 360))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80, optimize=True)
    return stream.getvalue()
