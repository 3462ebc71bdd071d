"""``captioner extract``: write features of images or videos to a feature store."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captioner.cli.options import Device
from captioner.cli.output import accept_any_file_name
from captioner.cli.scale import ScaleOptions, run_shards, scale_options
from captioner.errors import UsageError, print_error
from captioner.files import HDF5, check_output
from captioner.parts import parse_part
from captioner.progress import progress_bar

if TYPE_CHECKING:
    from captioner.backbones.spec import BackboneSpec
    from captioner.features.video_spec import VideoSpec

FRAMES = 16
"""Frames of a video: as many as in a clip of the LRCN paper."""


@functools.partial(scale_options, without=("workers", "output_format"))
def extract(
    *,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Images, or videos with --frames: files, folders, quoted patterns, - for stdin."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Feature store (HDF5); with --part a folder.")],
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone",
            "-b",
            help="default, efficientnet-lite:2, torchvision:vgg16@fc7, transformers:openai/clip-vit-base-patch32, "
            "local:record.yaml ...",
        ),
    ] = "default",
    weights: Annotated[Path | None, typer.Option(help="Weight file to use instead of the backbone's own.")] = None,
    crops: Annotated[int, typer.Option(help="1: the image; 10: corners, center and mirror images, averaged.")] = 1,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Mirror the images, for data.features_mirrored in training.")
    ] = False,
    frames: Annotated[
        int, typer.Option(min=0, metavar="N", help="Videos: N frames, spread evenly; 0 is for images.")
    ] = 0,
    flow: Annotated[
        str, typer.Option(metavar="METHOD", help="Videos: use images of the optical flow, by dis or farneback.")
    ] = "",
    gamma: Annotated[
        float, typer.Option(help="Videos: exponent of the brightness; below 1, such as 0.45, brightens dark videos.")
    ] = 1.0,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that read images.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Images in one pass through the network.")] = 32,
    part: Annotated[str, typer.Option(help="i/n: every n-th image from the i-th, into the folder -o.")] = "1/1",
    dtype: Annotated[str, typer.Option(help="Number format of the store: float16 or float32.")] = "float16",
    precision: Annotated[str, typer.Option(help="Number format of the network: float32 or bfloat16.")] = "float32",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="For shards: list them and estimate the time, but write nothing.")
    ] = False,
    device: Device = "cpu",
    scale: ScaleOptions,
) -> None:
    """Compute the features of images, or of frames of videos, and write them to a store.

    With --frames or --flow, the sources are videos. --flow alone uses 16 frames.

    With --engine, or for tars, Parquet, CSV and JSON lines, -o is a folder with one Parquet file per shard, and each of
    --workers is a process with its own network. captioner features import converts the folder to a store.

    The same command resumes an interrupted extraction. Unreadable images and videos are reported on stderr and skipped;
    the exit status is then 1.
    """
    from captioner.backbones import load_backbone
    from captioner.data.images import IMAGES, find_named
    from captioner.data.video import VIDEOS
    from captioner.devices import find_device
    from captioner.features import extract as extraction

    accept_any_file_name()
    if scale.takes(sources):
        if frames or flow or gamma != 1 or part != "1/1" or dtype != "float16":
            raise UsageError(
                "shards hold float16 features of images; leave out --frames, --flow, --gamma, --part and --dtype"
            )
        options = {"backbone": backbone, "weights": weights, "crops": crops, "mirror": mirror}
        options |= {"precision": precision, "batch_size": batch_size, "device": device}
        processes = max(1, workers) if scale.engine in (None, "local", "ray") else 1
        scale = replace(scale, workers=processes, output_format="parquet")
        run_shards("extract", options, sources, scale, output, dry_run)
        return
    if dry_run:
        raise UsageError("--dry-run is for shards; give tars, tables, or images with --engine")
    choice = parse_part(part)
    if choice == (1, 1) and not output.is_dir():
        check_output("-o", output, HDF5, [*sources, weights])
    place = find_device(device)
    network = load_backbone(backbone, weights)
    video = _video_spec(network.spec, frames, flow, gamma, crops)
    kind = VIDEOS if video else IMAGES
    with progress_bar(kind.what) as bar:
        report = extraction.extract(
            find_named(sources, sys.stdin, kind),
            network,
            output,
            crops=crops,
            mirror=mirror,
            video=video,
            workers=workers,
            batch_size=batch_size,
            part=choice,
            dtype=dtype,
            precision=precision,
            device=place,
            progress=bar.update,
        )
    for error in report.failed:
        print_error(f"error: {error}")
    counts = f"{report.done} added, {report.skipped} there already, {len(report.failed)} failed"
    print_error(f"{output}: {counts}")
    if report.failed:
        raise typer.Exit(1)


def _video_spec(spec: BackboneSpec, frames: int, flow: str, gamma: float, crops: int) -> VideoSpec | None:
    """The spec of the videos' features; None if no option says that the sources are videos."""
    from captioner.data.flow import require_flow
    from captioner.features.video_spec import VideoSpec
    from captioner.optional import require

    if not frames and not flow:
        if gamma != 1:
            raise UsageError("--gamma is for videos; give the number of frames with --frames")
        return None
    if crops != 1:
        raise UsageError("--crops is for images; leave it out for videos, whose frames are not cropped")
    require("av", "video")
    if flow:
        require_flow(flow)
    return VideoSpec.of(spec, frames or FRAMES, gamma=gamma, flow=flow)
