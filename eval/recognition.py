"""Evaluate recognizers: accuracy with intervals and p-values, fusion of RGB and flow, confusion matrix, page.

    python -m eval.recognition runs/rgb-seed* runs/flow-seed* -o report

RUNS are folders of training runs, or checkpoints, of the task activity. Runs that differ only in seed, in split or
fold, and in folder are one system; its accuracy is over the test videos of all its splits, and the mean over its seeds.
Intervals are by the bootstrap over videos. p-values are by approximate randomization over videos, against the first
system or --baseline; a fusion is also compared with each of its streams, and a second table compares all pairs of one
stream. They are adjusted for the number of comparisons (Holm 1979).

An RGB system is fused with the flow system of the same settings. The fusion is the mean of their probabilities, with
weights 1/2 and 1/2, with 1/3 and 2/3 (Donahue et al. 2015, table 1), and with a weight chosen on the dev videos of each
run. Nothing is chosen on test videos. Runs read the feature stores that they were trained on. stdout gets the tables in
Markdown; -o FOLDER adds index.html, with frames of the best and worst videos, and report.md.
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from captioner.cli.program import create_app, run
from captioner.data.activity import LabeledVideo
from captioner.data.video import read_end, sample_frames
from captioner.errors import CaptionerError, UsageError, print_error
from captioner.files import check_output
from captioner.metrics.classification import Proportion, confusion_matrix
from captioner.metrics.significance import Estimate, compare_systems, holm
from captioner.optional import require
from eval.classes import confusion
from eval.page import Block, Card, Cards, Heading, Table, Text, to_markdown
from eval.published import read_tables
from eval.recognizers import System, fuse, p_value, read_systems
from eval.report import MARKDOWN, PAGE, write

SHOWN = 4
"""Frames of a video on the page, row by row in two columns."""
LEVEL = 0.05
"""Differences with a p-value of at least this are not listed."""
HOLM = "The p-values are adjusted for their number in the table (Holm 1979)."


def recognition(
    runs: Annotated[list[Path], typer.Argument(help="Training runs' folders, or checkpoints.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the page.")] = None,
    baseline: Annotated[str, typer.Option(help="Name of the system to compare the others with.")] = "",
    examples: Annotated[int, typer.Option(min=0, help="Number of best and of worst videos on the page.")] = 4,
    title: Annotated[str, typer.Option(help="The data set's name on the page.")] = "Activities",
) -> None:
    if output is not None:
        check_output("-o", output / "index.html", PAGE, runs)
        check_output("-o", output / "report.md", MARKDOWN, runs)
    systems = read_systems(runs)
    systems += fuse(systems)
    names = [system.name for system in systems]
    if baseline and baseline not in names:
        raise UsageError(f"--baseline {baseline}: no such system; there are: {', '.join(names)}")
    systems.sort(key=lambda system: system.name != baseline)  # the sort is stable
    estimates = _estimates(systems)
    blocks = [*_results(systems, estimates), *_published(systems, title)]
    print(to_markdown(title, blocks), end="")
    if output is not None:
        best = max(systems, key=lambda system: estimates[system.name].score)
        write(output, title, [*blocks, *_details(best), *_examples(best, examples)])


def _estimates(systems: Sequence[System]) -> dict[str, Estimate]:
    """The accuracy of each system with its interval."""
    found = compare_systems({system.name: system.scored for system in systems}, trials=0)
    return {name: scores["accuracy"] for name, scores in found.items()}


def _results(systems: Sequence[System], estimates: Mapping[str, Estimate]) -> list[Block]:
    """The table of accuracies, with the accuracy of chance."""
    by_name = {system.name: system for system in systems}
    pairs = [(systems[0].name, system.name) for system in systems[1:]]
    pairs += [(name, system.name) for system in systems for name in system.streams if (name, system.name) not in pairs]
    adjusted = holm([p_value(by_name[one], by_name[other]) for one, other in pairs])
    values = {pair: _p(value) for pair, value in zip(pairs, adjusted, strict=True)}
    rows = []
    for system in systems:
        one = estimates[system.name]
        spread = f" ± {one.spread:.1f}" if one.spread is not None else ""
        cells = [system.name, system.stream, f"{one.score:.1f}{spread}", f"[{one.low:.1f}, {one.high:.1f}]"]
        against = (systems[0].name, *(system.streams or ("", "")))
        rows.append([*cells, *(values.get((name, system.name), "") for name in against)])
    labels = systems[0].labels
    [(label, count)] = Counter(labels.values()).most_common(1)
    chance = Proportion(count, len(labels))
    low, high = chance.interval
    rows.append([f"always {label}", "", f"{chance.percent:.1f}", f"[{low:.1f}, {high:.1f}]", "", "", ""])
    header = ["system", "stream", "accuracy (%)", "95 %", f"p, {systems[0].name}", "p, RGB", "p, flow"]
    splits = len({split for _, split in systems[0].runs})
    what = (
        f"{len(labels)} test videos of {splits} split{'s' if splits > 1 else ''}, {len(set(labels.values()))} classes"
    )
    seeds = f"seeds {', '.join(map(str, systems[0].seeds))}"
    note = f"{what}; {seeds}: the mean, with the standard deviation. Intervals and p-values are about videos. {HOLM}"
    blocks = [Table(header, rows, left=2), Text(note, note=True), *_weights(systems)]
    return [*blocks, *_pairs(systems, estimates), *_per_split(systems)]


def _pairs(systems: Sequence[System], estimates: Mapping[str, Estimate]) -> list[Block]:
    """The significant differences between systems of one stream."""
    blocks: list[Block] = []
    for stream in ("RGB", "flow"):
        some = sorted((one for one in systems if one.stream == stream), key=lambda one: -estimates[one.name].score)
        pairs = list(combinations(some, 2))
        if not pairs:
            continue
        adjusted = holm([p_value(*pair) for pair in pairs])
        rows = [
            [better.name, worse.name, f"{estimates[better.name].score - estimates[worse.name].score:.1f}", _p(p)]
            for (better, worse), p in zip(pairs, adjusted, strict=True)
            if p < LEVEL
        ]
        blocks.append(Heading(f"Differences between systems on {stream}"))
        if rows:
            blocks.append(Table(["system", "better than", "by (points)", "p"], rows, left=2))
        left = len(pairs) - len(rows)
        blocks.append(
            Text(f"{left} of {len(pairs)} differences may be accidents, with p >= {LEVEL}. {HOLM}", note=True)
        )
    return blocks


def _weights(systems: Sequence[System]) -> list[Block]:
    """The fusion weights that were chosen on dev."""
    blocks: list[Block] = []
    for system in systems:
        chosen = [one.note for one in system.runs.values() if one.note]
        if chosen:
            text = f"Weights of the flow, chosen on dev by each run of {system.name}: {', '.join(chosen)}."
            blocks.append(Text(text, note=True))
    return blocks


def _per_split(systems: Sequence[System]) -> list[Block]:
    """The accuracy on each split, if there are several."""
    splits = sorted({split for system in systems for _, split in system.runs})
    if len(splits) < 2:
        return []
    rows = []
    for system in systems:
        cells = []
        for split in splits:
            values = [run.test.accuracy for (_, one), run in system.runs.items() if one == split]
            cells.append(100 * float(np.mean(values)))
        rows.append([system.name, *(f"{cell:.1f}" for cell in cells), f"{np.mean(cells):.1f}"])
    return [Heading("Splits"), Table(["accuracy (%)", *(f"split {split}" for split in splits), "mean"], rows)]


def _published(systems: Sequence[System], title: str) -> list[Block]:
    """Published accuracies on UCF-101, if the systems were tested on it."""
    if "ucf" not in title.lower():
        return []
    blocks: list[Block] = [Heading("Published")]
    for table in read_tables("ucf101", "activity recognition"):
        header = ["system", *next(iter(table.rows)).values]
        rows = [[row.system, *(f"{value:.1f}" for value in row.values.values() if value)] for row in table.rows]
        blocks += [Text(f"{table.citation}, {table.split}", note=True), Table(header, rows)]
    return blocks


def _details(system: System) -> list[Block]:
    """The confusion matrix of the first seed of a system."""
    labels, seed = system.labels, system.seeds[0]
    classes = sorted(set(labels.values()) | set(system.predictions(seed).values()))
    blocks: list[Block] = [Heading(f"The best system: {system.name}"), Text(f"Seed {seed}.", note=True)]
    return [*blocks, *confusion(confusion_matrix(labels, system.predictions(seed), classes), classes)]


def _examples(system: System, number: int) -> list[Block]:
    """Frames of the videos whose correct class is most and least probable."""
    seed = system.seeds[0]
    order = sorted(system.confidence(seed).items(), key=lambda item: -item[1])
    blocks: list[Block] = []
    for heading, some in (("Best videos", order[:number]), ("Worst videos", order[::-1][:number])):
        cards = [_card(system.videos[name], system.predictions(seed)[name], value) for name, value in some]
        blocks += [Heading(heading), Cards(cards)] if cards else []
    return blocks


def _card(video: LabeledVideo, predicted: str, confidence: float) -> Card:
    lines = [("true class", f"{video.label} ({100 * confidence:.0f} %)"), ("predicted", predicted)]
    return Card(_frames(video), video.image_id, lines, alt=f"frames of {video.image_id}")


def _frames(video: LabeledVideo) -> bytes:
    """Frames of a video as one JPEG; empty if it cannot be read."""
    if video.path is None:
        return b""
    try:
        require("av", "video")
        end = read_end(video.path)
        times = [end * (i + 0.5) / SHOWN for i in range(SHOWN)]
        images = [moment.frame.image() for moment in sample_frames(video.path, times)]
    except CaptionerError as error:
        print_error(f"note: {error}")
        return b""
    for image in images:
        image.thumbnail((180, 180))
    width, height = images[0].size
    sheet = Image.new("RGB", (2 * width, SHOWN // 2 * height))
    for place, image in enumerate(images):
        sheet.paste(image, (place % 2 * width, place // 2 * height))
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=80, optimize=True)
    return stream.getvalue()


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


app = create_app(__doc__, recognition)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
