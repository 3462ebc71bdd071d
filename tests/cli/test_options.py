"""Options generated from DecodingConfig."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from captioner.cli.app import app
from captioner.cli.options import decoding_options
from captioner.decoding import DecodingConfig
from captioner.errors import UsageError


@pytest.mark.parametrize("command", ["caption", "describe"])
@pytest.mark.parametrize("item", fields(DecodingConfig), ids=lambda item: item.name)
def test_every_decoding_field_is_an_option(command: str, item: Any) -> None:
    """Would catch a field that a command does not offer, or offers under another name."""
    options = {one.name: one for one in typer.main.get_command(app).commands[command].params}  # type: ignore[attr-defined]
    option = options[item.name]
    assert option.opts == [f"--{item.name.replace('_', '-')}"]
    assert option.help == f"{item.metadata['help']}  [default: the model's own]"
    assert option.default is None


def program() -> tuple[typer.Typer, list[dict[str, Any]]]:
    """A command with one argument besides the options of decoding, and what it is called with."""
    given: list[dict[str, Any]] = []
    own = typer.Typer()

    @own.command()
    @decoding_options
    def command(*, name: Annotated[str, typer.Argument()], decoding: dict[str, Any]) -> None:
        """Do something."""
        given.append({"name": name, **decoding})

    return own, given


def test_only_given_options_reach_the_command() -> None:
    """Would catch a default that overrides the model's own setting, and an option of 0 taken for none."""
    own, given = program()
    assert CliRunner().invoke(own, ["a", "--length-penalty", "0", "--beam-size", "2"]).exit_code == 0
    assert CliRunner().invoke(own, ["b"]).exit_code == 0
    assert given == [{"name": "a", "length_penalty": 0.0, "beam_size": 2}, {"name": "b"}]


def test_contradictions_are_refused_before_the_command_runs() -> None:
    own, given = program()
    result = CliRunner().invoke(own, ["a", "--num-samples", "2", "--beam-size", "2"])
    assert isinstance(result.exception, UsageError)
    assert not given
