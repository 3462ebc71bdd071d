"""``captioner status``: how far a run on shards is."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from captioner.errors import printable


def status(
    output: Annotated[str, typer.Argument(metavar="OUT", help="The folder of captioner caption ... --engine.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> None:
    """Show how far a run on shards is, from the files in its folder alone.

    The exit status is 1 where shards failed.
    """
    from captioner.scale.status import read_status

    found = read_status(output)
    if as_json:
        print(json.dumps(asdict(found) | {"waiting": found.waiting}))
    else:
        left = "unknown" if found.seconds_left is None else str(timedelta(seconds=round(found.seconds_left)))
        lines = {
            "shards": f"{found.shards:,}",
            "done": f"{found.done:,}",
            "running": f"{found.running:,}",
            "failed": f"{len(found.failed):,}",
            "waiting": f"{found.waiting:,}",
            "images": f"{found.images:,} captioned, {found.failed_images:,} failed",
            "images/s": f"{found.images_per_second:.1f}",
            "time left": left,
        }
        for name, value in lines.items():
            print(f"{name:10}{value}")
        for name, error in found.failed.items():
            print(f"{name}: {printable(error)}")
    if found.failed:
        raise typer.Exit(1)
