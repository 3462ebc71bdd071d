"""``captioner export``: write a model for runtimes other than torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captioner.cli.program import choice
from captioner.errors import print_error
from captioner.files import SAFETENSORS, check_output


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint, or the folder of a training run.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write (.safetensors).")],
    to: Annotated[str, choice(("onnx",), help="Runtime for the file.")] = "onnx",
) -> None:
    """Write a model as a file that captions images without torch.

    The file is a checkpoint like MODEL, with additional graphs for ONNX Runtime. captioner caption --model FILE then
    needs neither torch nor the packages of the backbone, and starts in a fraction of the time.
    """
    from captioner.predictors import find_model

    source = find_model(model)
    check_output("-o", output, SAFETENSORS, [source])
    from captioner.export import export_onnx

    export_onnx(source, output)
    print_error(f"{output}: {output.stat().st_size / 1e6:.1f} MB; try: captioner caption --model {output} photo.jpg")
