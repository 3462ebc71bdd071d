"""Options of commands that decode: one for each field of ``DecodingConfig``, and ``--device``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from captioner.decoding.config import DecodingConfig
from captioner.decoding.options import check_options

Model = Annotated[str, typer.Option(help="default, a checkpoint (.safetensors) or the folder of a training run.")]
AnyModel = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="default; a checkpoint (.safetensors) or the folder of a training run; an alias (see captioner models), "
        "hf:OWNER/NAME or a folder for a Hugging Face model; http://HOST:PORT/v1#NAME for a server with OpenAI's "
        "protocol.",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Prompt for a model that reads text with the image.  [default: the model's own]"),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps, as named by torch.")]
Result = TypeVar("Result")

HINTS = get_type_hints(DecodingConfig)
METAVARS = {str: "NAME", int: "N", float: "X"}


def decoding_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Replace a command's parameter ``decoding`` by an option for each field of ``DecodingConfig``.

    The command gets a dictionary of the options that were given. If they contradict each other, ``UsageError`` is
    raised before the command runs.
    """

    def collect(**values: Any) -> dict[str, Any]:
        given = {name: value for name, value in values.items() if value is not None}
        check_options(given)
        return given

    return expand(command, "decoding", _decoding_parameters(), collect)


def expand(
    command: Callable[..., Result], name: str, options: Sequence[inspect.Parameter], collect: Callable[..., Any]
) -> Callable[..., Result]:
    """``command`` with ``options``, which typer turns into options, in place of its parameter ``name``.

    That parameter gets the result of ``collect`` for their values.
    """

    @functools.wraps(command)
    def with_options(**values: Any) -> Result:
        collected = collect(**{one.name: values.pop(one.name) for one in options})
        return command(**values, **{name: collected})

    parameters: list[inspect.Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == name:
            parameters += options
        else:
            parameters.append(parameter.replace(annotation=hints.get(parameter.name, parameter.annotation)))
    signature = inspect.Signature([one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters])
    with_options.__signature__ = signature  # type: ignore[attr-defined]  # typer reads this
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


def _decoding_parameters() -> list[inspect.Parameter]:
    """An optional parameter for each field of ``DecodingConfig``, with the field's help text."""
    return [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                HINTS[item.name] | None,
                typer.Option(
                    metavar=METAVARS[HINTS[item.name]],
                    help=f"{item.metadata['help']}  [default: the model's own]",
                ),
            ],
        )
        for item in fields(DecodingConfig)
    ]
