"""Describers of clips side by side, over recognizers of any quality: BLEU-4, and which is better than which.

    python -m eval.clip_captioners runs/tacos/simulated-snr*/ --clips runs/tacos/clips/clips.jsonl --plot scores.png

Each folder is about one recognizer, as scripts/train_tacos.sh makes it: ``potentials.h5``, and captions of the test
clips in ``results/``. ``c-prob-seed0.json`` and ``c-prob-seed1.json`` are one system, and so are they with a
``-simulated`` before ``-seed``, which says that no video was seen. BLEU-4 is against all sentences of a clip, and
beside it against the first one alone. Of a recognizer it is told how many of all labels are right, and how many of
those that are not NULL: most clips have no tool and no place, so that the first is high for one that sees nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captioner.crf.predictions import Potentials, read_potentials
from captioner.data.clips import NULL, Clip, read_clips
from captioner.data.records import SPLITS, Captioned
from captioner.errors import DataError, exit_status
from captioner.files import atomic_path, write_text
from captioner.metrics import References, Scored
from captioner.metrics.significance import Estimate, compare_systems
from captioner.text.tokenizers import DEFAULT
from eval import figures
from eval.page import Block, Heading, Table, Text, to_markdown
from eval.systems import group, read_file
from eval.tuples import clips_of, records_of

NAMES = {
    "smt-max": "SMT, CRF max",
    "smt-prob": "SMT, CRF prob",
    "a-max": "(a) encoder-decoder, CRF max",
    "b-max": "(b) decoder, CRF max",
    "c-prob": "(c) decoder, CRF prob",
    "c4f-prob": "(c) with four layers, factored",
    "nearest-max": "nearest tuple, CRF max",
    "nearest-prob": "nearest tuple, CRF prob",
    "template": "template",
}
CLAIMS = (
    ("c-prob", "b-max"),
    ("b-max", "a-max"),
    ("smt-prob", "smt-max"),
    ("b-max", "smt-max"),
    ("c-prob", "smt-prob"),
    ("a-max", "smt-max"),
)
"""Pairs of systems, the one that the LRCN paper found better first."""
METRIC = "BLEU-4"
COLUMNS = ("vision", "labels right", "not NULL", "system", "runs", METRIC, "deviation", "one reference")


@dataclass(frozen=True)
class Judged:
    """What one recognizer's describers are worth."""

    source: str
    """What made the potentials, in its own words."""
    accuracy: float
    """Share of all labels that are right, in percent."""
    stated: float
    """The same of labels that are not NULL."""
    systems: dict[str, list[Scored]]
    first: dict[str, float]
    """BLEU-4 of each system against one sentence a clip, mean over its runs."""

    def mean(self, system: str) -> float:
        return float(np.mean(self._values(system)))

    def spread(self, system: str) -> float | None:
        """Standard deviation over runs; None of a single one."""
        values = self._values(system)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def held(self, better: str, worse: str) -> tuple[float, Estimate]:
        """By how much the first leads, and with which p-value (paired bootstrap over clips)."""
        found = compare_systems({worse: self.systems[worse], better: self.systems[better]}, trials=0)
        return self.mean(better) - self.mean(worse), found[better][METRIC]

    def _values(self, system: str) -> list[float]:
        return [one[METRIC].value for one in self.systems[system]]


def accuracy(potentials: Potentials, clips: Sequence[Clip]) -> tuple[float, float]:
    """Percent of the labels of ``clips`` that the best assignment has right, and of those that are not NULL."""
    known = [clip for clip in clips if clip.labels is not None]
    if not known:
        return float("nan"), float("nan")
    rows = potentials.select([clip.clip_id for clip in known])
    truth = np.array([clip.labels for clip in known])
    right = np.array([potentials.tuple_of(row) for row in rows]) == truth
    stated = truth != NULL
    return 100 * float(right.mean()), 100 * float(right[stated].mean()) if stated.any() else float("nan")


def judge(folder: Path, clips: Sequence[Clip], everything: References, first: References) -> Judged:
    """Read and score all that lies in ``folder``; ``first`` has one sentence a clip."""
    potentials = read_potentials(folder / "potentials.h5")
    records: list[Captioned] = records_of(clips)
    files = sorted((folder / "results").glob("*.json"))
    if not files:
        raise DataError(f"{folder / 'results'}: no captions here; scripts/train_tacos.sh makes them")
    runs = {
        name.removesuffix("-simulated"): members
        for name, members in group([read_file(path, records) for path in files]).items()
    }
    order = sorted(runs, key=lambda name: [*NAMES].index(name) if name in NAMES else len(NAMES))
    systems = {name: [everything.score(one.captions, ["bleu"]) for one in runs[name]] for name in order}
    single = {name: [first.score(one.captions, ["bleu"])[METRIC].value for one in runs[name]] for name in order}
    return Judged(
        potentials.source, *accuracy(potentials, clips), systems, {k: float(np.mean(v)) for k, v in single.items()}
    )


def blocks(judged: Judged) -> list[Block]:
    """The tables of one recognizer."""
    rows = []
    for name, runs in judged.systems.items():
        spread = judged.spread(name)
        score = f"{judged.mean(name):.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
        rows.append([NAMES.get(name, name), str(len(runs)), score, f"{judged.first[name]:.1f}"])
    claims = []
    for better, worse in CLAIMS:
        if better in judged.systems and worse in judged.systems:
            gap, estimate = judged.held(better, worse)
            claims.append([NAMES[better], NAMES[worse], f"{gap:+.1f}", f"{estimate.p_bootstrap:.3f}"])
    right = f"Labels right: {judged.accuracy:.1f} %; of those that are not NULL: {judged.stated:.1f} %."
    signature = next(iter(judged.systems.values()))[0][METRIC].signature
    return [
        Heading(judged.source),
        Text(right),
        Table(["system", "runs", METRIC, "one reference"], rows),
        *([Table(["", "over", METRIC, "p"], claims)] if claims else []),
        Text(signature, note=True),
    ]


def table(found: Sequence[Judged]) -> str:
    """All scores as CSV, a line for each recognizer and system."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for judged in found:
        for name, runs in judged.systems.items():
            spread = judged.spread(name)
            deviation = "" if spread is None else f"{spread:.2f}"
            right = f"{judged.accuracy:.1f}", f"{judged.stated:.1f}"
            scores = f"{judged.mean(name):.2f}", deviation, f"{judged.first[name]:.2f}"
            writer.writerow([judged.source, *right, name, len(runs), *scores])
    return stream.getvalue()


def points(found: Sequence[Judged]) -> dict[str, list[tuple[float, float, float]]]:
    """(labels right that are not NULL, BLEU-4, its deviation over runs) of each system, the worst recognizer first."""
    series: dict[str, list[tuple[float, float, float]]] = {}
    for judged in sorted(found, key=lambda one: one.stated):
        for name in judged.systems:
            point = (judged.stated, judged.mean(name), judged.spread(name) or 0.0)
            series.setdefault(NAMES.get(name, name), []).append(point)
    return series


def references(clips: Mapping[str, Sequence[str]], options: argparse.Namespace) -> References:
    return References(clips, options.tokenizer, split=options.split)


def run(options: argparse.Namespace) -> None:
    clips = clips_of(read_clips("clips", options.clips), options.split)
    everything = references({clip.clip_id: clip.sentences for clip in clips}, options)
    first = references({clip.clip_id: clip.sentences[:1] for clip in clips}, options)
    found = [judge(folder, clips, everything, first) for folder in options.folders]
    title = f"{METRIC}, {options.split}"
    print(to_markdown(title, [block for judged in found for block in blocks(judged)]), end="")
    if options.csv is not None:
        write_text(options.csv, table(found))
    if options.plot is not None:
        simulated = any("simulated" in judged.source for judged in found)
        axis = "labels that the CRF has right, of those that are not NULL (%)"
        with atomic_path(options.plot) as temporary:
            temporary.write_bytes(figures.sweep(points(found), f"{axis}{', simulated vision' * simulated}", METRIC))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="with potentials.h5 and results/")
    parser.add_argument("--clips", type=Path, required=True, help="clips.jsonl as preprocess.tacos writes it")
    parser.add_argument("--split", default="test", choices=SPLITS, help="that the captions are of")
    parser.add_argument("--tokenizer", default=DEFAULT, help="how sentences are cut into words")
    parser.add_argument("--csv", type=Path, help="all scores as a table")
    parser.add_argument("--plot", type=Path, help="PNG with a line for each system")
    options = parser.parse_args(arguments)
    return exit_status(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
