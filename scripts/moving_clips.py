"""Generate clips in the layout of UCF-101, for trials without it: textures that move or stand still.

    python -m scripts.moving_clips FOLDER

Writes FOLDER/UCF-101 with folders of classes, six groups of two clips in each class, and the lists of three splits in
FOLDER/ucfTrainTestlist; split 1 tests groups 1 and 2, and so on. Clips of a group share their texture.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from captioner.cli.program import create_app, run
from captioner.files import write_text
from captioner.optional import require

CLASSES = {"GoingAcross": (0, 1), "GoingDown": (1, 0), "GoingUp": (-1, 0), "StandingStill": (0, 0)}
"""Direction of motion, (down, across): "across" is left or right at random, so mirroring keeps a clip's class."""
GROUPS, CLIPS, FRAMES, RATE = 6, 2, 24, 25
HEIGHT, WIDTH = 96, 128


def moving_clips(
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    seed: Annotated[int, typer.Option(help="Seed of textures and speeds.")] = 0,
) -> None:
    lists: dict[str, list[str]] = {f"{part}list0{split}.txt": [] for part in ("train", "test") for split in (1, 2, 3)}
    for number, (label, direction) in enumerate(CLASSES.items(), start=1):
        for group in range(1, GROUPS + 1):
            random = np.random.default_rng([seed, number, group])
            texture = _texture(random)
            for clip in range(1, CLIPS + 1):
                name = f"{label}/v_{label}_g{group:02d}_c{clip:02d}.avi"
                path = folder / "UCF-101" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                side = random.choice([-1, 1])
                _write(path, texture, np.array(direction) * (1, side) * random.uniform(1.5, 3.5))
                for split in (1, 2, 3):
                    tested = group in (2 * split - 1, 2 * split)
                    lists[f"{'test' if tested else 'train'}list0{split}.txt"].append(
                        name if tested else f"{name} {number}"
                    )
    for name, lines in lists.items():
        write_text(folder / "ucfTrainTestlist" / name, "".join(f"{line}\n" for line in lines))


def _texture(random: np.random.Generator) -> np.ndarray:
    """An image (H, W, 3) uint8 of blurred noise that repeats at its borders."""
    noise = random.normal(size=(HEIGHT, WIDTH, 3))
    waves = [
        np.fft.fftfreq(side)[:, None] if axis == 0 else np.fft.fftfreq(side)
        for axis, side in enumerate(noise.shape[:2])
    ]
    blur = np.exp(-((waves[0] ** 2 + waves[1] ** 2) * 300))[..., None]
    smooth = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * blur, axes=(0, 1)).real
    image: np.ndarray = np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return image


def _write(path: Path, texture: np.ndarray, speed: np.ndarray) -> None:
    """Write a clip in which the texture moves by ``speed`` (2,) pixels per frame."""
    av: Any = require("av", "video")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(FRAMES):
            shift = np.rint(number * speed).astype(int)
            image = np.roll(texture, tuple(shift.tolist()), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))
        container.mux(stream.encode())


app = create_app(__doc__, moving_clips)

if __name__ == "__main__":
    sys.exit(run(app))
