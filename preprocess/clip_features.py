"""Features of the clips of a data set from its videos, for captioner crf train and predict.

    python -m preprocess.clip_features clips.jsonl VIDEOS -o features.h5 --backbone torchvision:resnet50

VIDEOS is the folder with the videos; each file is named, before its extension, as its video in clips.jsonl. The
feature of a clip is the mean over frames spread evenly over it, computed as captioner describe does for a video. An
interrupted run resumes after the last finished video. Clips that cannot be read are reported on stderr and skipped;
the exit status is then 1.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone
from captioner.cli.program import create_app, run
from captioner.data.clips import Clip, read_clips
from captioner.data.video import read_frames
from captioner.errors import DataError, print_error, warn
from captioner.features.frames import FRAMES, clip_features
from captioner.features.writer import FeatureWriter
from captioner.files import HDF5, check_output


def extract(
    clips: Sequence[Clip], folder: Path, backbone: Backbone, output: Path, number: int, device: str
) -> list[str]:
    """Add the features of ``clips`` that the store ``output`` lacks, from ``number`` frames each; returns errors."""
    videos: dict[str, list[Clip]] = defaultdict(list)
    problems = []
    with FeatureWriter(output, backbone.spec, backbone.weights_digest, "float32") as writer:
        todo = set(writer.plan(clip.clip_id for clip in clips))
        for clip in clips:
            if clip.clip_id in todo:
                videos[clip.video].append(clip)
        for done, (name, wanted) in enumerate(videos.items(), start=1):
            try:
                intervals = [(clip.start, clip.end) for clip in wanted]
                with closing(read_frames(_find(folder, name), warn)) as frames:
                    found = clip_features(frames, intervals, backbone, number=number, device=device)
            except DataError as error:
                problems.append(str(error))
                continue
            for clip, seen in zip(wanted, found, strict=True):
                if seen.error:
                    problems.append(f"{clip.clip_id}: {clip.start:g}-{clip.end:g} {seen.error}")
                else:
                    writer.add(clip.clip_id, seen.feature)
            writer.flush()
            print_error(f"{name}: {done} of {len(videos)} videos")
    return problems


def _find(folder: Path, name: str) -> Path:
    found = sorted(path for path in folder.glob(f"{name}.*") if path.is_file())
    if len(found) != 1:
        raise DataError(f"{folder}: {len(found) or 'no'} files named {name}.*; there must be one for each video")
    return found[0]


def write_clip_features(
    clips: Annotated[Path, typer.Argument(help="clips.jsonl of preprocess.tacos.")],
    videos: Annotated[Path, typer.Argument(help="Folder of the videos.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Feature store to write (HDF5).")],
    backbone: Annotated[str, typer.Option(help="Key of the CNN, as for captioner extract.")] = "default",
    weights: Annotated[Path | None, typer.Option(help="File with other weights of the CNN.")] = None,
    frames: Annotated[int, typer.Option(min=1, max=1000, help="Frames of each clip.")] = FRAMES,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
) -> None:
    """Write CNN features of clips, each the mean over frames spread evenly over the clip."""
    check_output("-o", output, HDF5, [clips, weights])
    network = load_backbone(backbone, weights)
    problems = extract(read_clips("clips", clips), videos, network, output, frames, device)
    for problem in problems:
        print_error(f"error: {problem}")
    if problems:
        raise DataError(f"{output}: some clips have no features; the reasons are above")


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, write_clip_features), arguments)


if __name__ == "__main__":
    sys.exit(main())
