"""``captioner extract``: images to a feature store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from captioner.cli.options import Device
from captioner.cli.output import accept_any_file_name
from captioner.errors import print_error
from captioner.files import HDF5, check_output
from captioner.progress import progress_bar


def extract(
    images: Annotated[list[str], typer.Argument(help="Files, folders, quoted patterns, or - for paths on stdin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Store to write (HDF5); with --part a folder.")],
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone",
            "-b",
            help="compact, efficientnet-lite:2, torchvision:vgg16@fc7, transformers:openai/clip-vit-base-patch32, "
            "local:record.yaml ...",
        ),
    ] = "compact",
    weights: Annotated[Path | None, typer.Option(help="Weight file instead of the backbone's usual one.")] = None,
    crops: Annotated[int, typer.Option(help="1: the image; 10: corners, center and mirror images, averaged.")] = 1,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Mirror the images: a store for data.features_mirrored in training.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that read images.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Images in one pass through the network.")] = 32,
    part: Annotated[str, typer.Option(help="i/n: every n-th image from the i-th, into the folder -o.")] = "1/1",
    dtype: Annotated[str, typer.Option(help="Stored as float16 or float32.")] = "float16",
    precision: Annotated[str, typer.Option(help="Computed in float32 or bfloat16.")] = "float32",
    device: Device = "cpu",
) -> None:
    """Compute the features of images and keep them in a store.

    An interrupted extraction is resumed when the same command is run again. Unreadable images are reported on stderr
    and skipped; the exit status is then 1.
    """
    from captioner.backbones import load_backbone
    from captioner.data.images import find_named
    from captioner.devices import find_device
    from captioner.features import extract as extraction

    accept_any_file_name()
    choice = extraction.parse_part(part)
    if choice == (1, 1) and not output.is_dir():
        check_output("-o", output, HDF5, [*images, weights])
    place = find_device(device)
    network = load_backbone(backbone, weights)
    with progress_bar("images") as bar:
        report = extraction.extract(
            find_named(images, sys.stdin),
            network,
            output,
            crops=crops,
            mirror=mirror,
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
