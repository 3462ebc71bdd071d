"""``captioner recognize``: activities in videos, on stdout."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captioner import subtitles
from captioner.cli.options import Device
from captioner.cli.output import accept_any_file_name
from captioner.cli.subtitle_files import SRT, VTT
from captioner.errors import UsageError, print_error, printable
from captioner.files import check_output, write_text

if TYPE_CHECKING:
    from captioner.predictors.activity import Recognition

NO_MODEL = (
    "no recognizer ships with captioner; name one with --model, or train one on a folder of your own clips: "
    "docs/recognize.md has the three commands"
)


def recognize(
    videos: Annotated[
        list[str], typer.Argument(metavar="VIDEO...", help="Videos, folders, globs, or - for paths on stdin.")
    ],
    model: Annotated[
        str | None, typer.Option(help="A recognizer: a checkpoint (.safetensors) or the folder of a training run.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Activities of each video.")] = 5,
    per_clip: Annotated[
        bool, typer.Option("--per-clip", help="Divide each video into clips of --every seconds, and print their times.")
    ] = False,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --per-clip: length of the clips.  [default: 10]")
    ] = None,
    device: Device = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one object per line: video (start, end), activities, model.")
    ] = False,
    srt: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --per-clip and one video: also write SubRip subtitles.")
    ] = None,
    vtt: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --per-clip and one video: also write WebVTT subtitles.")
    ] = None,
) -> None:
    """Recognize the activities in videos.

    For a single video, prints an activity and its probability on each line, the most probable first. For several
    videos, folders, globs or -, the path comes first. --per-clip adds the start and end in seconds.

    Unreadable videos are reported on stderr and skipped; the exit status is then 1.
    """
    from captioner.data.images import find_named
    from captioner.data.video import VIDEOS

    _check_usage(per_clip, every, [srt, vtt])
    inputs: list[str | Path | None] = [*videos, model]
    for option, path, kind in (("--srt", srt, SRT), ("--vtt", vtt, VTT)):
        if path is not None:
            check_output(option, path, kind, inputs)
            inputs.append(path)
    if model is None:
        raise UsageError(NO_MODEL)
    accept_any_file_name()
    alone = len(videos) == 1 and os.path.isfile(videos[0])
    if (srt or vtt) and not alone:
        raise UsageError("--srt and --vtt are for one video; give a single file")
    from captioner.predictors.activity import WINDOW, load_recognizer

    recognizer = load_recognizer(model, device)
    found = (file if isinstance(file, Exception) else file.path for file in find_named(videos, sys.stdin, VIDEOS))
    failed, cues = False, []
    for result in recognizer.results(found, top=top, every=(every or WINDOW) if per_clip else None):
        if result.error is not None:
            print_error(f"error: {result.error}")
            failed = True
            continue
        _print(result, recognizer.name, as_json, alone)
        if result.interval is not None:
            cues.append((*result.interval, result.guesses[0].name))
    for path, form in ((srt, subtitles.srt), (vtt, subtitles.webvtt)):
        if path is not None:
            write_text(path, form(cues))
    if failed:
        raise typer.Exit(1)


def _check_usage(per_clip: bool, every: float | None, files: list[Path | None]) -> None:
    """Raise ``UsageError`` for options of clips without ``--per-clip``."""
    if not per_clip and (every is not None or any(files)):
        raise UsageError("--every, --srt and --vtt are for clips; add --per-clip")
    if every is not None and not 0.1 <= every <= 86400:
        raise UsageError(f"--every {every}: choose 0.1 to 86400 seconds")


def _print(result: Recognition, model: str, as_json: bool, alone: bool) -> None:
    if as_json:
        record: dict[str, object] = {"video": result.video}
        if result.interval is not None:
            record |= {"start": result.interval[0], "end": result.interval[1]}
        record["activities"] = [{"label": one.name, "probability": one.probability} for one in result.guesses]
        print(json.dumps(record | {"model": model}), flush=True)
        return
    where = [] if alone else [printable(result.video)]
    if result.interval is not None:
        where += [f"{time:.3f}" for time in result.interval]
    for guess in result.guesses:
        print("\t".join([*where, printable(guess.name), f"{guess.probability:.3f}"]), flush=True)
