"""``captioner describe``: label predictions of clips, or a video, to sentences on stdout."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner import subtitles
from captioner.cli.caption import accept_any_name, check_output, line_of, report
from captioner.cli.search import (
    Beam,
    Device,
    Greedy,
    LengthPenalty,
    MaxLength,
    NoRepeat,
    NumCaptions,
    Sample,
    SearchName,
    Seed,
    Temperature,
    search_options,
)
from captioner.errors import DataError, UsageError
from captioner.files import write_text

if TYPE_CHECKING:
    from captioner.predictors.video import Describer, Description

HDF5 = (b"\x89HDF\r\n\x1a\n", (".h5", ".hdf5"))
"""How a label-predictions file begins, or is called; all else is taken for a video."""
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
BETWEEN = re.compile(rf"\s*({NUMBER})\s*-\s*({NUMBER})\s*")


def describe(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Label predictions of clips (HDF5), or a video.")],
    model: Annotated[str, typer.Option(help="A describer: a checkpoint (.safetensors) or the folder of a run.")],
    clip: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Of label predictions: only this clip; may be repeated.  [default: all]"),
    ] = None,
    intervals: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Of a video: intervals in seconds, as 0-5.2,5.2-9, or a file with a line START<tab>END for each.  "
            "[default: windows of --every seconds]",
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Of a video: describe windows of this length.  [default: 10]"),
    ] = None,
    beam: Beam = None,
    greedy: Greedy = False,
    sample: Sample = None,
    temperature: Temperature = None,
    seed: Seed = 0,
    search: SearchName = None,
    num_captions: NumCaptions = 1,
    max_length: MaxLength = None,
    length_penalty: LengthPenalty = None,
    no_repeat: NoRepeat = None,
    device: Device = "cpu",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one object a line: clip (or video, start, end), caption, log_prob (in nats), model."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Of label predictions: write COCO results there, not sentences."
        ),
    ] = None,
    srt: Annotated[Path | None, typer.Option(metavar="FILE", help="Of a video: also write SubRip subtitles.")] = None,
    vtt: Annotated[Path | None, typer.Option(metavar="FILE", help="Of a video: also write WebVTT subtitles.")] = None,
) -> None:
    """Describe the clips of a label-predictions file, or a video.

    Of label predictions, each clip prints its id, a tab and a sentence; a single --clip its sentence alone. The
    model knows whether it reads the best assignment or the probabilities.

    A video goes through the network and the CRF that its model holds (python -m scripts.pack_clip_captioner puts them
    there), and each interval prints start and end in seconds and a sentence, with tabs between them. An interval that
    is not in the video costs one line on stderr; the others are described and the exit status is 1.
    """
    of_predictions = _is_predictions(source)
    of_clips = {"--clip": clip, "-o": output}
    of_videos = {"--intervals": intervals, "--every": every, "--srt": srt, "--vtt": vtt}
    _check_usage(source, of_predictions, of_videos if of_predictions else of_clips)
    if output is not None and num_captions > 1:
        raise UsageError("COCO results (-o) hold one sentence a clip; use --json for --num-captions above 1")
    when = _when(intervals, every)
    accept_any_name()
    options = search_options(locals())
    from captioner.predictors.video import EVERY, load_describer

    for option, path in (("-o", output), ("--srt", srt), ("--vtt", vtt)):
        if path is not None:
            check_output(option, path)
    describer = load_describer(model, device)
    if of_predictions:
        failed = _describe_clips(describer, source, clip, output, as_json, options)
    else:
        found = describer.describe_video(source, when or EVERY, **options)
        failed = _report_video(found, source, describer.name, as_json)
        cues = [(one.start, one.end, one.captions[0].text) for one in found if one.captions]
        for path, form in ((srt, subtitles.srt), (vtt, subtitles.webvtt)):
            if path is not None:
                write_text(path, form(cues))
    if failed:
        raise typer.Exit(1)


def _is_predictions(source: Path) -> bool:
    start, endings = HDF5
    if source.suffix.lower() in endings:
        return True
    if not source.is_file():
        return False
    with source.open("rb") as stream:
        return stream.read(len(start)) == start


def _check_usage(source: Path, of_predictions: bool, others: dict[str, Any]) -> None:
    """Raise ``UsageError`` for options of the ``others``: those of videos for label predictions, and the reverse."""
    mine, theirs = ("label predictions", "a video") if of_predictions else ("a video", "label predictions")
    for option, value in others.items():
        if value is not None:
            raise UsageError(f"{option} is for {theirs}; {source} is taken for {mine}")


def _when(intervals: str | None, every: float | None) -> list[tuple[float, float]] | float | None:
    """The intervals that are meant, or the length of windows, in seconds; None where nobody says."""
    if intervals is None:
        if every is not None and not 0.1 <= every < float("inf"):
            raise UsageError(f"--every must be at least 0.1 s, not {every}")
        return every
    if every is not None:
        raise UsageError("--intervals and --every exclude each other; choose one")
    return _read_intervals(Path(intervals)) if os.path.isfile(intervals) else _parse_intervals(intervals)


def _parse_intervals(text: str) -> list[tuple[float, float]]:
    matches = [BETWEEN.fullmatch(part) for part in text.split(",")]
    if not all(matches):
        raise UsageError(f"--intervals {text}: no such file, and not seconds as in 0-5.2,5.2-9")
    return [(float(match[1]), float(match[2])) for match in matches if match]


def _read_intervals(path: Path) -> list[tuple[float, float]]:
    """The intervals of a file with START<tab>END on each line; more columns and empty lines are passed over."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no text; a line of it should be START<tab>END in seconds") from error
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if not columns:
            continue
        if len(columns) < 2 or not all(re.fullmatch(NUMBER, column) for column in columns[:2]):
            raise DataError(f"{path}, line {number}: not START<tab>END in seconds: {line_of(line)}")
        found.append((float(columns[0]), float(columns[1])))
    if not found:
        raise DataError(f"{path}: holds no intervals; write START<tab>END in seconds on each line")
    return found


def _describe_clips(
    describer: Describer,
    source: Path,
    clips: Sequence[str] | None,
    output: Path | None,
    as_json: bool,
    options: dict[str, Any],
) -> bool:
    """Print or write a sentence for each clip; whether any has none."""
    results = describer.describe_label_predictions(source, clips, **options)
    alone = clips is not None and len(clips) == 1
    found, failed = report(results, describer.name, alone, as_json, output is not None and not as_json, what="clip")
    if output is not None and found:
        lines = [{"image_id": name, "caption": text} for name, text in found]
        write_text(output, json.dumps(lines, indent=0) + "\n")
        print(f"{len(found)} sentences written to {output}", file=sys.stderr)
    return failed


def _report_video(found: Sequence[Description], source: Path, model: str, as_json: bool) -> bool:
    """Print each interval with its sentences; whether any has none."""
    for one in found:
        if one.error:
            print(f"error: {line_of(str(source))}: {one.start:g}-{one.end:g} {one.error}", file=sys.stderr)
        for caption in one.captions:
            if as_json:
                where = {"video": str(source), "start": one.start, "end": one.end}
                print(json.dumps(where | {"caption": caption.text, "log_prob": caption.log_prob, "model": model}))
            else:
                print(f"{one.start:.3f}\t{one.end:.3f}\t{caption.text}")
    return any(one.error for one in found)
