"""``captioner describe``: sentences for label predictions of clips, or for a video, on stdout."""

from __future__ import annotations

import functools
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from captioner import subtitles
from captioner.cli.intervals import read_intervals
from captioner.cli.options import Device, decoding_options
from captioner.cli.output import Output, Writer, accept_any_file_name, write_coco_results
from captioner.cli.resume import PartialResults, check_results_output
from captioner.cli.subtitle_files import SRT, VTT
from captioner.errors import UsageError, warn
from captioner.files import check_output, write_text
from captioner.predictors.base import is_label_predictions


@decoding_options
def describe(
    *,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Label predictions of clips (HDF5), or a video.")],
    model: Annotated[
        str, typer.Option(help="A clip captioner: a checkpoint (.safetensors) or the folder of a training run.")
    ],
    clip: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Label predictions: only this clip; repeat it for more.  [default: all]"),
    ] = None,
    intervals: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Video: intervals in seconds, such as 0-5.2,5.2-9, or a file with START<tab>END on each line.  "
            "[default: windows of --every seconds]",
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Video: describe consecutive windows of this length.  [default: 10]"),
    ] = None,
    decoding: dict[str, Any],
    device: Device = "cpu",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one object per line: clip (or video, start, end), caption, log_prob (in nats), model."
        ),
    ] = False,
    output: Output = None,
    srt: Annotated[Path | None, typer.Option(metavar="FILE", help="Video: also write SubRip subtitles.")] = None,
    vtt: Annotated[Path | None, typer.Option(metavar="FILE", help="Video: also write WebVTT subtitles.")] = None,
) -> None:
    """Describe the clips of a file of label predictions, or a video.

    For label predictions, prints the id, a tab and a sentence of each clip; for a single --clip only the sentence. -o
    is for label predictions only.

    For a video, prints the start and end in seconds and a sentence of each interval, separated by tabs. The model's
    file must hold a CRF and a CNN; python -m scripts.pack_clip_captioner adds them.

    Clips and intervals that cannot be described are reported on stderr and skipped; the exit status is then 1.
    """
    from_labels = is_label_predictions(source)
    _check_usage(
        source,
        from_labels,
        {"--clip": clip, "-o": output},
        {"--intervals": intervals, "--every": every, "--srt": srt, "--vtt": vtt},
    )
    if output is not None and decoding.get("num_return_sequences", 1) > 1:
        raise UsageError("COCO results (-o) hold one sentence per clip; use --json with --num-return-sequences above 1")
    when = read_intervals(intervals, every)
    inputs: list[str | Path | None] = [source, model, intervals]
    if output is not None:
        check_results_output(output, inputs)
    for option, path, kind in (("--srt", srt, SRT), ("--vtt", vtt, VTT)):
        if path is not None:
            check_output(option, path, kind, inputs)
            inputs.append(path)
    accept_any_file_name()
    from captioner.predictors.video import load_clip_captioner

    captioner = load_clip_captioner(model, device)
    stores = captioner.stores(source) if output is not None else []
    partial = PartialResults(output, captioner, decoding, stores)
    if stores:
        run = functools.partial(captioner.caption_clips, source, **decoding)
        results = partial.resume(clip or stores[0].ids, run)
    else:
        results = captioner.results(source, ids=clip, intervals=when, warn=warn, **decoding)
    alone = clip is not None and len(clip) == 1
    writer = Writer(captioner.name, as_json, output, alone, what="clip")
    with partial, closing(results):
        found = list(writer.write(results))
        if output is not None and found:
            write_coco_results(output, [(str(result.image), result.captions[0].text) for result in found], "sentence")
            partial.remove()
    cues = [(*result.interval, result.captions[0].text) for result in found if result.interval is not None]
    for path, form in ((srt, subtitles.srt), (vtt, subtitles.webvtt)):
        if path is not None:
            write_text(path, form(cues))
    if writer.failed:
        raise typer.Exit(1)


def _check_usage(source: Path, from_labels: bool, of_labels: dict[str, Any], of_videos: dict[str, Any]) -> None:
    """Raise ``UsageError`` for an option of the other kind of source."""
    mine, theirs = ("label predictions", "a video") if from_labels else ("a video", "label predictions")
    for option, value in (of_videos if from_labels else of_labels).items():
        if value is not None:
            raise UsageError(f"{option} is for {theirs}, but {source} is read as {mine}")
