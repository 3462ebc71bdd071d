"""``captioner models``: the models that have an alias for ``--model``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

COLUMNS = ("model", "parameters", "license", "on this disk", "from")


def models(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one object per line, with the revision and the prompt.")
    ] = False,
) -> None:
    """List the captioners that have an alias, with size, license and files on disk.

    Other models are named by hf:OWNER/NAME (Hugging Face), a folder, a checkpoint or a server's address.
    """
    from captioner.hub import cached_bytes
    from captioner.predictors import MODELS
    from captioner.predictors.pretrained import ALIASES

    own = MODELS["default"]
    size = f"{own.stat().st_size / 1e6:.0f} MB" if own.is_file() else "no"
    rows = [COLUMNS, ("default", "-", "Apache-2.0", size, "this package")]
    for name, record in ALIASES.items():
        found = cached_bytes(record.repository)
        if as_json:
            known = {"model": name, "repository": record.repository, "revision": record.revision}
            style = record.style.prompt if record.style else ""
            sizes = {"parameters": record.parameters * 1_000_000, "license": record.license, "bytes_on_disk": found}
            print(json.dumps(known | sizes | {"prompt": style}))
        size = f"{record.parameters}M" if record.parameters < 1000 else f"{record.parameters / 1000:.1f}B"
        rows.append((name, size, record.license, f"{found / 1e9:.1f} GB" if found else "no", record.repository))
    if as_json:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
