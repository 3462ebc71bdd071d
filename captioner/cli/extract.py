"""``captioner extract``: images or videos to a feature store."""

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
"""Frames of a video, as many as a clip of the LRCN paper has."""


@functools.partial(scale_options, without=("workers", "output_format"))
def extract(
    *,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Images, or videos with --frames: files, folders, quoted patterns, - for stdin."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Store to write (HDF5); with --part a folder.")],
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone",
            "-b",
            help="default, efficientnet-lite:2, torchvision:vgg16@fc7, transformers:openai/clip-vit-base-patch32, "
            "local:record.yaml ...",
        ),
    ] = "default",
    weights: Annotated[Path | None, typer.Option(help="Weight file instead of the backbone's usual one.")] = None,
    crops: Annotated[int, typer.Option(help="1: the image; 10: corners, center and mirror images, averaged.")] = 1,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Mirror the images: a store for data.features_mirrored in training.")
    ] = False,
    frames: Annotated[
        int, typer.Option(min=0, metavar="N", help="Videos: N frames spread evenly over each.  [default: 0, images]")
    ] = 0,
    flow: Annotated[
        str, typer.Option(metavar="METHOD", help="Videos: images of the optical flow instead, by dis or farneback.")
    ] = "",
    gamma: Annotated[
        float, typer.Option(help="Videos: exponent of the brightness; below 1, as 0.45, brightens dark ones.")
    ] = 1.0,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that read images.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Images in one pass through the network.")] = 32,
    part: Annotated[str, typer.Option(help="i/n: every n-th image from the i-th, into the folder -o.")] = "1/1",
    dtype: Annotated[str, typer.Option(help="Stored as float16 or float32.")] = "float16",
    precision: Annotated[str, typer.Option(help="Computed in float32 or bfloat16.")] = "float32",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With shards: print them and an estimate of the time, and write nothing.")
    ] = False,
    device: Device = "cpu",
    scale: ScaleOptions,
) -> None:
    """Compute the features of images, or of frames of videos, and keep them in a store.

    With --frames or --flow (16 frames, unless --frames says otherwise), the sources are videos.

    With --engine, or for tars, Parquet, CSV and JSON lines, -o is a folder with a Parquet file for each shard, and
    --workers are processes with a network each; captioner features import makes a store of it.

    An interrupted extraction is resumed when the same command is run again. Unreadable images and videos are reported
    on stderr and skipped; the exit status is then 1.
    """
    from captioner.backbones import load_backbone
    from captioner.data.images import IMAGES, find_named
    from captioner.data.video import VIDEOS
    from captioner.devices import find_device
    from captioner.features import extract as extraction

    accept_any_file_name()
    if scale.takes(sources):
        if frames or flow or part != "1/1" or dtype != "float16":
            raise UsageError("shards hold features of images in float16: not with --frames, --flow, --part or --dtype")
        options = {"backbone": backbone, "weights": weights, "crops": crops, "mirror": mirror}
        options |= {"precision": precision, "batch_size": batch_size, "device": device}
        processes = max(1, workers) if scale.engine in (None, "local", "ray") else 1
        scale = replace(scale, workers=processes, output_format="parquet")
        run_shards("extract", options, sources, scale, output, dry_run)
        return
    if dry_run:
        raise UsageError("--dry-run is for shards: tars, tables, or any images with --engine")
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
    """What is extracted of videos; None where no option says that the sources are videos."""
    from captioner.data.flow import require_flow
    from captioner.features.video_spec import VideoSpec
    from captioner.optional import require

    if not frames and not flow:
        if gamma != 1:
            raise UsageError("--gamma is for videos; say with --frames how many frames of each")
        return None
    if crops != 1:
        raise UsageError("--crops is for images; of a frame of a video there is one crop")
    require("av", "video")
    if flow:
        require_flow(flow)
    return VideoSpec.of(spec, frames or FRAMES, gamma=gamma, flow=flow)
