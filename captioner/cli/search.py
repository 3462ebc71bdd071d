"""The options of searches, for every command that looks for sentences."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

import typer

Beam = Annotated[int | None, typer.Option(metavar="N", help="Width of the beam.  [default: the model's own]")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Take the likeliest word at each step.")]
Sample = Annotated[
    int | None,
    typer.Option(metavar="N", help="Draw N captions and keep the most probable; the LRCN paper draws 100."),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        metavar="T",
        help="For --sample: scores are divided by T before drawing. The LRCN paper's T multiplies them, so it is "
        "the inverse: its T = 1.5 is --temperature 0.667.  [default: 1]",
    ),
]
Seed = Annotated[int, typer.Option(metavar="S", help="For --sample: the same seed draws the same captions.")]
SearchName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Any search by its name in captioner.decoding.SEARCHES; --beam, --greedy and --sample choose "
        "theirs.  [default: beam]",
    ),
]
NumCaptions = Annotated[int, typer.Option(metavar="K", help="Captions for each image or clip, best first.")]
MaxLength = Annotated[
    int | None, typer.Option(metavar="N", help="Most words in a caption.  [default: the model's own]")
]
LengthPenalty = Annotated[
    float | None,
    typer.Option(
        metavar="A",
        help="A beam ranks by log probability / words ** A; the LRCN paper's is 0.  [default: the model's own]",
    ),
]
NoRepeat = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="No phrase of N words twice in a caption; 0 allows all.  [default: the model's own]"
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps: as torch names them.")]


def search_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``captioner.predictors.lrcn.Search`` among a command's ``values``, its parameters by name.

    Contradictions raise ``UsageError``: they are found before a model is loaded.
    """
    # torch's threads spin while they wait, and the steps of a decoder are short: on a machine that does other things
    # as well, one photo then takes twice as long. Read by OpenMP when torch is loaded; the user's own choice stays.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from captioner.predictors.lrcn import Search

    options = {field.name: values[field.name] for field in fields(Search)}
    options["sample"] = options["sample"] or 0
    Search(**options)
    return options
