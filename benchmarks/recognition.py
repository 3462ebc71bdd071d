"""Recognizing activities, compared with the unavoidable work: decoding and features of frames with the bare network,
flow images with bare DIS, training with bare recurrent layers; and the memory for a video of an hour with that for one
of a third of the length, which should be the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.measure import Measurement, compare, rate
from benchmarks.memory import compare_memory
from benchmarks.motion import write_problem
from benchmarks.startup import captioner_command
from captioner.backbones import load_backbone
from captioner.backbones.backbone import IMAGES_AT_ONCE
from captioner.backbones.spec import normalize
from captioner.data.flow import flow_image, frame_flow, optical_flow
from captioner.data.images import find_named
from captioner.data.video import VIDEOS
from captioner.experiment import parse_experiment
from captioner.features.extract import extract
from captioner.features.video_spec import VideoSpec, video_views
from captioner.optional import require
from captioner.tasks.activity import activity_loss, load_activity
from captioner.tasks.base import Learner, find_task
from captioner.train.trainer import train

HEIGHT, WIDTH = 240, 320  # as in UCF-101
FRAMES = 16


def measure(count: int = 6, rounds: int = 5, network: str = "default") -> list[Measurement]:
    """Frames, pairs and steps per second, ours over the bare ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(count):
            write_video(folder / "videos" / f"{number}.mp4", 60, number)
        return [_extraction(folder, count, rounds, network), _flow(rounds), *_training(folder / "motion", rounds)]


def measure_memory(minutes: int = 60) -> list[Measurement]:
    """Peak memory of recognizing a video of this length over that of a third of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("a", "b"):
            for number in range(2):
                write_video(folder / "clips" / kind / f"{number}.mp4", 8, number, 48, 64)
        short, long = folder / "short.mp4", folder / "long.mp4"
        for path, length in ((short, minutes // 3), (long, minutes)):
            write_video(path, length * 60 * 5, 0, 48, 64, rate=5)
        store, run = folder / "features.h5", folder / "run"
        backbone = load_backbone("default")
        spec = VideoSpec.of(backbone.spec, 4)
        extract(find_named([str(folder / "clips")], kind=VIDEOS), backbone, store, video=spec, workers=0)
        data = {"root": str(folder / "clips"), "features": [str(store)], "dev_share": 0}
        settings = {"epochs": 1, "device": "cpu", "precision": "float32"}
        values = {"task": "activity", "data": data, "output": str(run), "train": settings, "model": {"hidden_dim": 8}}
        train(parse_experiment(values, "benchmarks.recognition"), progress=False)
        command = [*captioner_command(), "recognize", "--model", str(run), "--per-clip"]
        return [
            compare_memory(
                f"memory of a video of {minutes} minutes over {minutes // 3}",
                [*command, str(long)],
                [*command, str(short)],
                1.1,
            )
        ]


def write_video(path: Path, frames: int, seed: int, height: int = HEIGHT, width: int = WIDTH, rate: int = 25) -> None:
    """Write a video of a texture that moves to the right."""
    av = require("av", "video")
    path.parent.mkdir(parents=True, exist_ok=True)
    texture = _texture(seed, height, width)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(frames):
            image = np.roll(texture, 2 * number, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())


def _extraction(folder: Path, count: int, rounds: int, network: str) -> Measurement:
    backbone = load_backbone(network)
    spec = VideoSpec.of(backbone.spec, FRAMES)
    sources = list(find_named([str(folder / "videos")], kind=VIDEOS))
    views = [torch.from_numpy(video_views(folder / "videos" / f"{number}.mp4", spec)) for number in range(count)]

    def ours() -> None:
        output = folder / "features.h5"
        output.unlink(missing_ok=True)
        extract(sources, backbone, output, video=spec, workers=0)

    @torch.inference_mode()
    def bare() -> None:
        for view in torch.cat(views).split(IMAGES_AT_ONCE["cpu"]):
            backbone(normalize(view, backbone.spec))

    frames = count * FRAMES
    name = f"decoding and {network} over {network} alone"
    return compare(name, "frames/s", rate(frames, ours), rate(frames, bare), rounds=rounds, target=0.85)


def _flow(rounds: int, pairs: int = 10) -> Measurement:
    image = _texture(0, HEIGHT, WIDTH)
    moved = np.roll(image, 3, 1)
    gray = [np.ascontiguousarray(one[..., 0]) for one in (image, moved)]

    def ours() -> None:
        for _ in range(pairs):
            flow_image(frame_flow(image, moved, 1 / 30))

    def bare() -> None:
        for _ in range(pairs):
            optical_flow(*gray)

    return compare(
        "flow images over bare DIS", "pairs/s", rate(pairs, ours), rate(pairs, bare), rounds=rounds, target=0.8
    )


def _training(folder: Path, rounds: int, steps: int = 8) -> list[Measurement]:
    """Steps of the task's own loop over those of its layers alone, on features (32, 16, 192) in memory."""
    folder.mkdir()
    write_problem(folder, "direction", 64, 2)
    data = {"format": "tsv", "root": str(folder), "features": [str(folder / "features.h5")], "dev_share": 0.2}
    values = {"task": "activity", "data": data, "train": {"batch_size": 32}, "model": {"input_dropout": 0.5}}
    experiment = parse_experiment(values, "benchmarks.recognition")
    loaded = load_activity(experiment)
    model = find_task("activity").build(experiment.config, loaded.inputs, loaded.outputs)
    learner = Learner(model).train()
    optimizer = torch.optim.AdamW(model.parameters())

    def step(loss: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def ours() -> None:
        done = 0
        while done < steps:
            for batch in loaded.batches(done):
                step(activity_loss(learner, batch).total / len(batch))
                done += 1

    batch = next(loaded.batches(0))
    labels = batch.labels.repeat_interleave(16)

    def bare() -> None:
        for _ in range(steps):
            hidden = functional.dropout(model.recurrent(functional.dropout(batch.videos, 0.5))[0], 0.5)
            step(functional.cross_entropy(model.head(hidden).flatten(0, 1), labels))

    return [
        compare("training over its layers", "steps/s", rate(steps, ours), rate(steps, bare), rounds=rounds, target=0.8)
    ]


def _texture(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth noise (H, W, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
