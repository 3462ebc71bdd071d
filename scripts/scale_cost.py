"""Time, cost and storage of captioning many images, from a measured rate.

python -m scripts.scale_cost --rate 70.1 --cores 2 --price 0.04
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from captioner.cli.program import create_app, run
from captioner.tables import render

COUNTS = (10**6, 10**8, 10**9)
MACHINES = (2, 64, 1024)
"""Total cores; shards are independent, so the time is that of one core divided by the number of cores."""
HEADER = ("images", "core hours", "cost", *(f"{cores} cores" for cores in MACHINES), "read", "captions", "features")


def table(rate: float, cores: int, price: float, image: float, caption: float, dimension: int) -> str:
    """The table in Markdown; ``rate`` is in images per second on ``cores``, ``price`` per core and hour."""
    rows = []
    for count in COUNTS:
        hours = count * cores / rate / 3600
        times = [duration(hours / machine) for machine in MACHINES]
        sizes = [amount(count * each) for each in (image * 1000, caption, 2 * dimension)]
        rows.append([f"{count:,}", f"{hours:,.0f}", f"{hours * price:,.2f}", *times, *sizes])
    return render(HEADER, rows, style="markdown")


def duration(hours: float) -> str:
    """A duration in days, hours or minutes."""
    return f"{hours / 24:,.1f} days" if hours >= 48 else f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def amount(count: float) -> str:
    """Bytes in MB, GB or TB."""
    unit = next((unit for unit in ("TB", "GB") if count >= {"TB": 1e12, "GB": 1e9}[unit]), "MB")
    return f"{count / {'TB': 1e12, 'GB': 1e9, 'MB': 1e6}[unit]:,.1f} {unit}"


def scale_cost(
    rate: Annotated[float, typer.Option(min=1e-6, help="Images a second, as a benchmark or a run's statistics say.")],
    cores: Annotated[int, typer.Option(min=1, help="Cores that the rate was measured on.")],
    price: Annotated[float, typer.Option(min=0, help="Price of a core for an hour.")] = 0.04,
    image: Annotated[float, typer.Option(min=0, help="Kilobytes of an image.")] = 100.0,
    caption: Annotated[float, typer.Option(min=0, help="Bytes of a line of captions.")] = 150.0,
    dimension: Annotated[int, typer.Option(min=1, help="Numbers of a feature, in float16.")] = 1280,
) -> None:
    """Print time, cost and storage for 10^6, 10^8 and 10^9 images as a Markdown table."""
    print(table(rate, cores, price, image, caption, dimension))


app = create_app(__doc__, scale_cost)

if __name__ == "__main__":
    sys.exit(run(app))
