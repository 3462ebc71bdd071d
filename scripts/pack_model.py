"""Put a trained decoder and its CNN into one small checkpoint, as shipped with the package.

    python -m scripts.pack_model runs/default/best.safetensors --weights runs/cnn/cnn.safetensors \
        -o captioner/assets/default.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from captioner.backbones import load_backbone
from captioner.backbones.spec import BackboneSpec
from captioner.checkpoint import load_checkpoint, save_checkpoint
from captioner.cli.program import choice, create_app, run
from captioner.config import from_mapping, to_mapping
from captioner.errors import CheckpointError
from captioner.files import SAFETENSORS, check_output

DTYPES = {"float16": torch.float16, "int8": torch.int8}


def pack(source: Path, weights: Path | None, output: Path, dtype: str = "float16", **decoding: float | None) -> None:
    """Write ``source`` with its backbone's weights inside; fields of its ``DecodingConfig`` can be changed."""
    check_output("-o", output, SAFETENSORS, [source, weights])
    checkpoint = load_checkpoint(source)
    if len(checkpoint.inputs) != 1:
        raise CheckpointError(f"{source} takes {len(checkpoint.inputs)} backbones; packing is for one")
    spec = checkpoint.inputs[0]
    if not isinstance(spec, BackboneSpec):
        raise CheckpointError(f"{source} reads {spec.key}, which no network makes; packing is for a model with a CNN")
    states = [state for state in checkpoint.backbone_states if state is not None]
    state = states[0] if states else load_backbone(spec.key, weights).network.state_dict()
    chosen: dict[str, Any] = {name: value for name, value in decoding.items() if value is not None}
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
    """A run's settings without the paths of this machine, of which only the names are kept."""
    if isinstance(value, dict):
        return {key: portable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [portable(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    weights: Annotated[Path | None, typer.Option(help="The CNN's weights, if the checkpoint has none.")] = None,
    dtype: Annotated[str, choice(tuple(DTYPES), help="Type of the decoder's matrices.")] = "float16",
    beam_size: Annotated[int | None, typer.Option(help="Replaces the checkpoint's own.")] = None,
    length_penalty: Annotated[float | None, typer.Option(help="Replaces the checkpoint's own.")] = None,
    no_repeat_ngram_size: Annotated[int | None, typer.Option(help="Replaces the checkpoint's own.")] = None,
) -> None:
    decoding = {
        "beam_size": beam_size,
        "length_penalty": length_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
    }
    pack(checkpoint, weights, output, dtype, **decoding)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, command), arguments)


if __name__ == "__main__":
    sys.exit(main())
