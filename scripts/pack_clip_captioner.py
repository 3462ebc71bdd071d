"""Put a describer, its CRF and the CNN that looks at frames into one checkpoint, for captioner describe VIDEO.

    python -m scripts.pack_clip_captioner runs/tacos-c --crf crf.safetensors \
        --backbone torchvision:resnet50 -o describer.safetensors

The CRF has to have learned from features of that CNN (python -m preprocess.clip_features makes them).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from captioner.backbones import load_backbone
from captioner.crf.model import load_crf
from captioner.errors import exit_status
from captioner.features.frames import FRAMES
from captioner.predictors.video import Vision, load_describer, save_describer


def pack(model: Path, crf: Path, backbone: str, weights: Path | None, number: int, output: Path) -> None:
    """Write the describer ``model`` with the two other stages inside; errors as of ``save_describer``."""
    vision = Vision(load_backbone(backbone, weights), load_crf(crf), number)
    save_describer(output, load_describer(model), vision)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="checkpoint or folder of a run that reads potentials")
    parser.add_argument("--crf", type=Path, required=True, help="file of captioner crf train")
    parser.add_argument("--backbone", required=True, help="key of the CNN, as for captioner extract")
    parser.add_argument("--weights", type=Path, help="file with its weights instead of the usual ones")
    parser.add_argument("--frames", type=int, default=FRAMES, help="frames of an interval to look at (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    if options.frames < 1:
        parser.error("--frames must be at least 1")
    packed = (options.model, options.crf, options.backbone, options.weights, options.frames, options.output)
    return exit_status(lambda: pack(*packed))


if __name__ == "__main__":
    sys.exit(main())
