"""Score trained runs on a test split and print one table, with the spread over seeds and published figures below.

    python -m eval.compare runs/flickr8k-4f-seed* runs/flickr8k-2f-seed* --published flickr8k

Runs that differ in their seed and folder alone are one row: mean and, from two seeds on, standard deviation. Each run's
checkpoint says which data set and feature stores it was trained on; `--root` and `--features` override them. Captions
are found with the search kept in the checkpoint, or with `--beam` and `--length-penalty`, which are to be chosen with
`--split val`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from captioner.data import read_dataset
from captioner.data.records import Record
from captioner.errors import CaptionerError, CheckpointError
from captioner.features.store import FeatureStore
from captioner.metrics import Score, score_captions
from captioner.pipeline import Captioner, load
from eval.published import TABLES, Published

ORDERS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
HEADER = "| system | " + " | ".join(ORDERS) + " | CIDEr-D | seeds | source |"
RULE = "|---|" + "---:|" * 5 + "---|---|"


@dataclass(frozen=True)
class Row:
    """One run's scores: BLEU-1 to BLEU-4 and CIDEr-D."""

    name: str
    group: str
    """Everything of its configuration but seed, name and folder: equal groups share a line of the table."""
    seed: int
    scores: tuple[float, ...]


def score_run(
    captioner: Captioner, records: Sequence[Record], stores: Sequence[FeatureStore], **search: Any
) -> list[Score]:
    """BLEU and CIDEr-D of the captions of ``records`` from their cached features."""
    found = captioner.caption_features(stores, [record.image_id for record in records], **search)
    captions = {result.image: result.captions[0].text for result in found if result.error is None}
    return score_captions(captions, {r.image_id: list(r.captions) for r in records if r.image_id in captions})


def row(path: Path, captioner: Captioner, scores: Sequence[Score]) -> Row:
    """A run as a row of the table."""
    experiment = dict(captioner.checkpoint.extra.get("experiment", {}))
    train = dict(experiment.get("train", {}))
    seed = int(train.pop("seed", 0))
    group = json.dumps([experiment.get("model"), experiment.get("data"), train], sort_keys=True)
    bleu, cider = scores
    return Row(str(experiment.get("name", path)), group, seed, (*(bleu.parts[o] for o in ORDERS), cider.value))


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown, one for each group of runs, in the order of their first runs."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for one in rows:
        groups[one.group].append(one)
    lines = []
    for runs in groups.values():
        cells = []
        for index, values in enumerate(zip(*(run.scores for run in runs), strict=True)):
            digits = 3 if index == len(ORDERS) else 1
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.{digits}f}{spread}")
        seeds = ", ".join(str(run.seed) for run in runs)
        lines.append(f"| {runs[0].name} | {' | '.join(cells)} | {seeds} | |")
    return lines


def published_line(entry: Published) -> str:
    """A paper's figures as a line of the same table."""
    cells = [f"{value:.1f}" if value is not None else "-" for value in entry.bleu]
    cells.append(f"{entry.cider:.3f}" if entry.cider is not None else "-")
    return f"| {entry.system} | {' | '.join(cells)} | | {entry.source} |"


def compare(options: argparse.Namespace) -> None:
    """Score each run, printing each as it is done on stderr and the table on stdout."""
    rows: list[Row] = []
    signatures: set[str] = set()
    search = {} if options.beam is None else {"beam": options.beam}
    for path in options.runs:
        captioner = load(path, options.device)
        data = captioner.data_set
        if data is None:
            raise CheckpointError(f"{path} does not say what it was trained on; it was not written by captioner train")
        records = [r for r in read_dataset(data.format, Path(options.root or data.root)) if r.split == options.split]
        stores = [FeatureStore(store) for store in (options.features or data.features)]
        named = {"length_penalty": options.length_penalty, "no_repeat": options.no_repeat}
        chosen: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        captioner.checkpoint = replace(captioner.checkpoint, decode=replace(captioner.checkpoint.decode, **chosen))
        scores = score_run(captioner, records, stores, **search)
        rows.append(row(path, captioner, scores))
        signatures |= {score.signature for score in scores}
        print(f"{path}: {scores[0].value:.2f} {scores[1].value:.3f}", file=sys.stderr)
    print("\n".join([HEADER, RULE, *table(rows), *map(published_line, TABLES.get(options.published, ()))]))
    for signature in sorted(signatures):
        print(f"\n{signature}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="training runs' folders or checkpoints")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--root", help="the data set's folder, if not where it was in training")
    parser.add_argument("--features", nargs="+", help="feature stores, if not where they were in training")
    parser.add_argument("--beam", type=int, help="beam width instead of each checkpoint's own")
    parser.add_argument("--length-penalty", type=float, help="instead of each checkpoint's own")
    parser.add_argument("--no-repeat", type=int, help="instead of each checkpoint's own")
    parser.add_argument("--published", choices=sorted(TABLES), help="papers' figures to add")
    parser.add_argument("--device", default="cpu")
    try:
        compare(parser.parse_args(arguments))
    except CaptionerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
