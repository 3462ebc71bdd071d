"""Compare clip captioners that use recognizers of different accuracy, by BLEU-4 with p-values.

    python -m eval.clip_captioners runs/tacos/synthetic-snr*/ --clips runs/tacos/clips/clips.jsonl --plot scores.png

Each folder belongs to one recognizer, as scripts/train_tacos.sh makes it: ``label-predictions.h5``, and captions of the
test clips in ``results/``. Files that differ only in ``-seedN`` are runs of one system; ``-synthetic`` before it marks
results without video. BLEU-4 is computed against all sentences of a clip, and against the first one alone; p-values are
also corrected for the number of comparisons in a table. Two accuracies of each recognizer are reported: of all labels,
and of those that are not NULL. Most clips have no tool and no place, so the former is high even for a recognizer
that predicts nothing.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from captioner.cli.program import create_app, run
from captioner.crf.predictions import LabelPredictions, read_label_predictions
from captioner.data.clips import NULL, Clip, read_clips
from captioner.data.records import Captioned
from captioner.errors import DataError
from captioner.files import PLOT, Kind, atomic_path, check_output, write_text
from captioner.metrics import References, Scored
from captioner.metrics.significance import Estimate, compare_systems, holm
from captioner.text.tokenizers import DEFAULT
from eval import figures
from eval.page import Block, Heading, Table, Text, to_markdown
from eval.systems import group, read_file
from eval.tuples import clips_of, records_of

NAMES = {  # as in table 9 of the LRCN paper: "CRF max" is the MAP assignment, "CRF prob" the marginals
    "smt-map": "SMT, CRF max",
    "smt-marginals": "SMT, CRF prob",
    "smt-untuned-map": "SMT, CRF max, not tuned",
    "smt-untuned-marginals": "SMT, CRF prob, not tuned",
    "a-map": "(a) encoder-decoder, CRF max",
    "b-map": "(b) decoder, CRF max",
    "c-marginals": "(c) decoder, CRF prob",
    "c-both": "(c) decoder, CRF max and prob",
    "nearest-map": "nearest tuple, CRF max",
    "nearest-marginals": "nearest tuple, CRF prob",
    "template": "template",
}
CLAIMS = (
    ("c-marginals", "b-map"),
    ("b-map", "a-map"),
    ("smt-marginals", "smt-map"),
    ("b-map", "smt-map"),
    ("c-marginals", "smt-marginals"),
    ("a-map", "smt-map"),
    ("b-map", "smt-untuned-map"),
    ("c-marginals", "smt-untuned-marginals"),
)
"""Pairs of systems; the LRCN paper found the first one better. In the last two pairs, BLEU-4 tuned neither."""
METRIC = "BLEU-4"
COLUMNS = ("recognizer", "labels right", "not NULL", "system", "runs", METRIC, "deviation", "one reference")
TABLE = Kind("a table of this program", ",".join(COLUMNS[:3]).encode())


@dataclass(frozen=True)
class RecognizerResult:
    """Scores of the clip captioners of one recognizer."""

    source: str
    """Description of the model that made the label predictions."""
    accuracy: float
    """Percentage of MAP labels that are correct."""
    non_null_accuracy: float
    """The same, over gold labels that are not NULL."""
    systems: dict[str, list[Scored]]
    """Scores of the runs of each system."""
    one_reference: dict[str, float]
    """BLEU-4 of each system against only the first sentence of each clip, mean over its runs."""

    def mean(self, system: str) -> float:
        return float(np.mean(self._values(system)))

    def spread(self, system: str) -> float | None:
        """Standard deviation over runs; None for a single one."""
        values = self._values(system)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def lead(self, better: str, worse: str) -> tuple[float, Estimate]:
        """Difference of the mean BLEU-4 of two systems, and its estimate by paired bootstrap over clips."""
        found = compare_systems({worse: self.systems[worse], better: self.systems[better]}, trials=0)
        return self.mean(better) - self.mean(worse), found[better][METRIC]

    def _values(self, system: str) -> list[float]:
        return [one[METRIC].value for one in self.systems[system]]


def accuracy(predictions: LabelPredictions, clips: Sequence[Clip]) -> tuple[float, float]:
    """Accuracy of the MAP labels of ``clips`` in percent: over all labels, and over gold labels that are not NULL."""
    known = [clip for clip in clips if clip.labels is not None]
    if not known:
        return float("nan"), float("nan")
    rows = predictions.select([clip.clip_id for clip in known])
    gold = np.array([clip.labels for clip in known])
    right = np.array([predictions.assignment(row) for row in rows]) == gold
    non_null = gold != NULL
    return 100 * float(right.mean()), 100 * float(right[non_null].mean()) if non_null.any() else float("nan")


def evaluate_folder(folder: Path, clips: Sequence[Clip], references: References, first: References) -> RecognizerResult:
    """Score all captions in ``folder`` against all references, and against ``first``, the first one of each clip."""
    predictions = read_label_predictions(folder / "label-predictions.h5")
    records: list[Captioned] = records_of(clips)
    files = sorted((folder / "results").glob("*.json"))
    if not files:
        raise DataError(f"{folder / 'results'}: no captions here; scripts/train_tacos.sh makes them")
    runs = {
        name.removesuffix("-synthetic"): members
        for name, members in group([read_file(path, records) for path in files]).items()
    }
    order = sorted(runs, key=lambda name: [*NAMES].index(name) if name in NAMES else len(NAMES))
    systems = {name: [references.score(one.captions, ["bleu"]) for one in runs[name]] for name in order}
    one_reference = {name: [first.score(one.captions, ["bleu"])[METRIC].value for one in runs[name]] for name in order}
    return RecognizerResult(
        predictions.source,
        *accuracy(predictions, clips),
        systems,
        {name: float(np.mean(values)) for name, values in one_reference.items()},
    )


def blocks(result: RecognizerResult) -> list[Block]:
    """The tables for one recognizer."""
    rows = []
    for name, runs in result.systems.items():
        spread = result.spread(name)
        score = f"{result.mean(name):.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
        rows.append([NAMES.get(name, name), str(len(runs)), score, f"{result.one_reference[name]:.1f}"])
    tested = [pair for pair in CLAIMS if all(system in result.systems for system in pair)]
    leads = [result.lead(*pair) for pair in tested]
    raw = [1.0 if estimate.p_bootstrap is None else estimate.p_bootstrap for _, estimate in leads]
    claims = [
        [NAMES[better], NAMES[worse], f"{gap:+.1f}", f"{p:.3f}", f"{corrected:.3f}"]
        for (better, worse), (gap, _), p, corrected in zip(tested, leads, raw, holm(raw), strict=True)
    ]
    right = f"Labels right: {result.accuracy:.1f} %; of those that are not NULL: {result.non_null_accuracy:.1f} %."
    signature = next(iter(result.systems.values()))[0][METRIC].signature
    return [
        Heading(result.source),
        Text(right),
        Table(["system", "runs", METRIC, "one reference"], rows),
        *([Table(["", "over", METRIC, "p", "p (Holm)"], claims)] if claims else []),
        Text(signature, note=True),
    ]


def table(found: Sequence[RecognizerResult]) -> str:
    """All scores as CSV, one line for each recognizer and system."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in found:
        for name, runs in result.systems.items():
            spread = result.spread(name)
            deviation = "" if spread is None else f"{spread:.2f}"
            right = f"{result.accuracy:.1f}", f"{result.non_null_accuracy:.1f}"
            scores = f"{result.mean(name):.2f}", deviation, f"{result.one_reference[name]:.2f}"
            writer.writerow([result.source, *right, name, len(runs), *scores])
    return stream.getvalue()


def points(found: Sequence[RecognizerResult]) -> dict[str, list[tuple[float, float, float]]]:
    """(Non-NULL accuracy, BLEU-4, its standard deviation over runs) of each system, by increasing accuracy.

    Untuned SMT is a control, and left out: eight lines can be told apart.
    """
    series: dict[str, list[tuple[float, float, float]]] = {}
    for result in sorted(found, key=lambda one: one.non_null_accuracy):
        for name in result.systems:
            if "untuned" in name:
                continue
            point = (result.non_null_accuracy, result.mean(name), result.spread(name) or 0.0)
            series.setdefault(NAMES.get(name, name), []).append(point)
    return series


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders with label-predictions.h5 and results/.")],
    clips_file: Annotated[Path, typer.Option("--clips", help="clips.jsonl of preprocess.tacos.")],
    split: Annotated[str, typer.Option(help="Split of the captions.")] = "test",
    tokenizer: Annotated[str, typer.Option(help="Tokenizer of captions and references.")] = DEFAULT,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Also write all scores as CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also write a PNG with a line for each system.")] = None,
) -> None:
    """Print tables of BLEU-4 and p-values for each folder."""
    inputs = [clips_file, *(folder / "label-predictions.h5" for folder in folders)]
    for option, path, kind in (("--csv", csv_file, TABLE), ("--plot", plot, PLOT)):
        if path is not None:
            check_output(option, path, kind, inputs)
            inputs.append(path)
    clips = clips_of(read_clips("clips", clips_file), split)
    references = References({clip.clip_id: clip.sentences for clip in clips}, tokenizer, split=split)
    first = References({clip.clip_id: clip.sentences[:1] for clip in clips}, tokenizer, split=split)
    results = [evaluate_folder(folder, clips, references, first) for folder in folders]
    print(to_markdown(f"{METRIC}, {split}", [block for result in results for block in blocks(result)]), end="")
    if csv_file is not None:
        write_text(csv_file, table(results))
    if plot is not None:
        note = ", synthetic features" if any("synthetic" in result.source for result in results) else ""
        axis = f"labels that the CRF has right, of those that are not NULL (%){note}"
        with atomic_path(plot) as temporary:
            temporary.write_bytes(figures.sweep(points(results), axis, METRIC))


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, compare), arguments)


if __name__ == "__main__":
    sys.exit(main())
