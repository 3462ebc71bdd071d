"""Draw docs/at-work.png, the image at the top of the README: photos, the command, and the model's captions.

    python scripts/readme_image.py [PHOTO...] [--model CHECKPOINT] [-o docs/at-work.png]

The photographs are those in examples/ unless others are named. The captions are computed while drawing; nothing
in the image is written by hand. Needs matplotlib.
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from captioner import load
from captioner.data.images import open_image
from captioner.files import Kind, atomic_path, check_output

CHECKOUT = Path(__file__).parents[1]
PANEL = 3.6  # width of a photo, in inches
TERMINAL = 1.0  # height of the terminal below it, in inches
DOTS = 110  # dots per inch
COLUMNS = 42  # characters of a terminal line
DRAWING = Kind("a PNG of 256 colors", rb"\x89PNG\r\n\x1a\n.{4}IHDR.{8}\x08\x03")
INK, PROMPT, PAPER = "#e6e6e6", "#8fbf7f", "#22252b"


def draw_photo(axes: Axes, path: Path) -> None:
    """Draw the middle square of a photo."""
    image = open_image(path)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    axes.imshow(image.crop((left, top, left + side, top + side)))
    axes.set_axis_off()


def draw_terminal(axes: Axes, command: str, caption: str) -> None:
    """Draw the command and its output as a terminal shows them."""
    axes.set_axis_off()
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, color=PAPER))
    style: dict[str, Any] = {"transform": axes.transAxes, "family": "monospace", "fontsize": 9, "va": "top"}
    axes.text(0.03, 0.88, f"$ {command}", color=PROMPT, **style)
    axes.text(0.03, 0.62, textwrap.fill(caption, COLUMNS), color=INK, linespacing=1.4, **style)


def draw(photos: list[Path], captions: list[str], output: Path) -> None:
    """One column for each photo; only 256 colors, to keep the file small."""
    figure = Figure(figsize=(PANEL * len(photos), PANEL + TERMINAL))
    rows = figure.subplots(
        2,
        len(photos),
        squeeze=False,
        height_ratios=(PANEL, TERMINAL),
        gridspec_kw={"left": 0.01, "right": 0.99, "top": 0.99, "bottom": 0.01, "wspace": 0.03, "hspace": 0.02},
    )
    for photo, caption, above, below in zip(photos, captions, *rows, strict=True):
        inside = photo.resolve().is_relative_to(CHECKOUT)
        shown = photo.resolve().relative_to(CHECKOUT).as_posix() if inside else photo.name
        draw_photo(above, photo)
        draw_terminal(below, f"captioner caption {shown}", caption)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DOTS, format="png")
    with atomic_path(output) as temporary, Image.open(drawn, formats=["PNG"]) as image:
        image.convert("RGB").quantize(256).save(temporary, "PNG", optimize=True)


def command(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photographs; those in examples/ by default.")] = None,
    model: Annotated[str, typer.Option(help="The captioner: default, a run or a checkpoint.")] = "default",
    output: Annotated[Path, typer.Option("--output", "-o")] = CHECKOUT / "docs" / "at-work.png",
) -> None:
    """Draw docs/at-work.png: photographs, the command, and the model's captions."""
    chosen = photos or sorted((CHECKOUT / "examples").glob("*.jpg"))
    check_output("-o", output, DRAWING, [*chosen, model])
    draw(chosen, load(model).caption(chosen), output)


if __name__ == "__main__":
    typer.run(command)
