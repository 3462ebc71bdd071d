"""Put a trained decoder and its CNN into one small checkpoint, as shipped with the package.

    python -m scripts.pack_model runs/default/best.safetensors --weights runs/cnn/cnn.safetensors \
        -o captioner/assets/default.safetensors
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from captioner.backbones import load_backbone
from captioner.backbones.spec import BackboneSpec
from captioner.checkpoint import load_checkpoint, save_checkpoint
from captioner.config import from_mapping, to_mapping
from captioner.errors import CheckpointError, exit_status

DTYPES = {"float16": torch.float16, "int8": torch.int8}


def pack(source: Path, weights: Path | None, output: Path, dtype: str = "float16", **search: float | None) -> None:
    """Write ``source`` with its backbone's weights inside; fields of its ``DecodingConfig`` may be set on the way."""
    checkpoint = load_checkpoint(source)
    if len(checkpoint.inputs) != 1:
        raise CheckpointError(f"{source} takes {len(checkpoint.inputs)} backbones; packing is for one")
    spec = checkpoint.inputs[0]
    if not isinstance(spec, BackboneSpec):
        raise CheckpointError(f"{source} reads {spec.key}, which no network makes; packing is for a model with a CNN")
    states = [state for state in checkpoint.backbone_states if state is not None]
    state = states[0] if states else load_backbone(spec.key, weights).network.state_dict()
    chosen: dict[str, Any] = {name: value for name, value in search.items() if value is not None}
    config = from_mapping(type(checkpoint.config), portable(to_mapping(checkpoint.config)), str(source))
    save_checkpoint(
        output,
        checkpoint.task,
        checkpoint.model,
        replace(config, decoding=replace(config.decoding, **chosen)),
        [replace(spec, weights="", sha256="")],
        checkpoint.outputs,
        extra=portable(checkpoint.extra),
        backbone_states=[state],
        dtype=DTYPES[dtype],
    )
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def portable(value: Any) -> Any:
    """Settings of a run as they go to others: of a path on this machine only the name."""
    if isinstance(value, dict):
        return {key: portable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [portable(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--weights", type=Path, help="the CNN's weights, if the checkpoint does not hold them")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="of the decoder's matrices")
    parser.add_argument("--beam-size", type=int)
    parser.add_argument("--length-penalty", type=float)
    parser.add_argument("--no-repeat-ngram-size", type=int)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    names = ("beam_size", "length_penalty", "no_repeat_ngram_size")
    search = {name: getattr(options, name) for name in names}
    return exit_status(lambda: pack(options.checkpoint, options.weights, options.output, options.dtype, **search))


if __name__ == "__main__":
    sys.exit(main())
