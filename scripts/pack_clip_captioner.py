"""Put a clip captioner, its CRF and the CNN that reads frames into one checkpoint, for captioner describe VIDEO.

    python -m scripts.pack_clip_captioner runs/tacos-c --crf crf.safetensors \
        --backbone torchvision:resnet50 -o clip-captioner.safetensors

The CRF must have been trained on features of that CNN (python -m preprocess.clip_features makes them).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from captioner.backbones import load_backbone
from captioner.crf.model import load_crf
from captioner.errors import exit_status
from captioner.features.frames import FRAMES
from captioner.files import SAFETENSORS, check_output
from captioner.predictors import find_model
from captioner.predictors.video import Vision, load_clip_captioner, save_clip_captioner

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def pack(
    model: Annotated[Path, typer.Argument(help="Clip captioner: a checkpoint or the folder of a training run.")],
    crf: Annotated[Path, typer.Option(help="CRF file of captioner crf train.")],
    backbone: Annotated[str, typer.Option(help="Key of the CNN, as for captioner extract.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint to write (.safetensors).")],
    weights: Annotated[Path | None, typer.Option(help="Weight file of the CNN instead of its usual one.")] = None,
    frames: Annotated[int, typer.Option(min=1, max=1000, help="Frames of an interval that the CNN reads.")] = FRAMES,
) -> None:
    """Put a clip captioner, its CRF and the CNN that reads frames into one checkpoint, for captioner describe VIDEO.

    The CRF must have been trained on features of that CNN; otherwise nothing is written.
    """
    check_output("-o", output, SAFETENSORS, [find_model(model), crf, weights])
    vision = Vision(load_backbone(backbone, weights), load_crf(crf), frames)
    save_clip_captioner(output, load_clip_captioner(model), vision)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def main() -> int:
    """Run the command line; returns the exit status."""
    return exit_status(lambda: app(prog_name="python -m scripts.pack_clip_captioner"))


if __name__ == "__main__":
    sys.exit(main())
