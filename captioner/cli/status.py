"""``captioner status``: the progress of a run on shards."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from captioner.errors import printable


def status(
    output: Annotated[str, typer.Argument(metavar="OUT", help="The folder -o of captioner caption --engine.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="Also read the captions and print keys that occur in several shards.")
    ] = False,
) -> None:
    """Show the progress of a run on shards, from the files in its folder.

    The exit status is 1 if shards failed.
    """
    from captioner.scale.keys import repeated_keys
    from captioner.scale.status import read_status

    found = read_status(output)
    repeated = repeated_keys(output) if keys else None
    if as_json:
        counted = {} if repeated is None else {"repeated_keys": repeated[0], "examples": repeated[1]}
        print(json.dumps(asdict(found) | {"waiting": found.waiting} | counted))
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
        if repeated is not None:
            lines["keys"] = f"{repeated[0]:,} in several shards"
        for name, value in lines.items():
            print(f"{name:10}{value}")
        for key, shards in repeated[1].items() if repeated else ():
            print(f"{printable(key)}: shards {', '.join(shards)}")
        for name, error in found.failed.items():
            print(f"{name}: {printable(error)}")
    if found.failed:
        raise typer.Exit(1)
