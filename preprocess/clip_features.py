"""Features of the clips of a data set, from its videos, for captioner crf train and predict.

    python -m preprocess.clip_features clips.jsonl VIDEOS -o features.h5 --backbone torchvision:resnet50

VIDEOS is the folder that holds each clip's video under its name, with any ending. A clip's feature is the mean over
frames spread evenly over it, as captioner describe works it out for a video. Started again, it goes on behind the last
video that was finished. Clips that cannot be had are named on stderr and left out; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from captioner.backbones import Backbone, load_backbone
from captioner.data.clips import Clip, read_clips
from captioner.data.video import read_frames
from captioner.errors import DataError, exit_status
from captioner.features.frames import FRAMES, clip_features
from captioner.features.writer import FeatureWriter


def extract(
    clips: Sequence[Clip], folder: Path, backbone: Backbone, output: Path, number: int, device: str
) -> list[str]:
    """Add the features of ``clips`` to the store ``output``, but for those it has; returns what went wrong."""
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
                with closing(read_frames(_find(folder, name))) as frames:
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
            print(f"{name}: {done} of {len(videos)} videos", file=sys.stderr)
    return problems


def _find(folder: Path, name: str) -> Path:
    found = sorted(path for path in folder.glob(f"{name}.*") if path.is_file())
    if len(found) != 1:
        raise DataError(f"{folder}: {len(found) or 'no'} files named {name}.*; there must be one for each video")
    return found[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="clips.jsonl of preprocess.tacos")
    parser.add_argument("videos", type=Path, help="folder of the videos")
    parser.add_argument("-o", "--output", type=Path, required=True, help="feature store to write (HDF5)")
    parser.add_argument("--backbone", default="compact", help="key of the CNN, as for captioner extract (%(default)s)")
    parser.add_argument("--weights", type=Path, help="file with its weights instead of the usual ones")
    parser.add_argument("--frames", type=int, default=FRAMES, help="frames of a clip to look at (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ... (%(default)s)")
    options = parser.parse_args()
    if options.frames < 1:
        parser.error("--frames must be at least 1")
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    clips = read_clips("clips", options.clips)
    backbone = load_backbone(options.backbone, options.weights)
    problems = extract(clips, options.videos, backbone, options.output, options.frames, options.device)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise DataError(f"{options.output}: not all clips have features; the reasons are above")


if __name__ == "__main__":
    sys.exit(main())
