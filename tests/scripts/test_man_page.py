"""The manual page: every command and option is in it, and roff reads it without a complaint."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import typer

from captioner.cli.app import app
from scripts.command_reference import commands
from scripts.man_page import _escape, man_page
from tests.conftest import CHECKOUT

PAGE = man_page(typer.main.get_command(app), "1.2.3")


def test_every_command_and_option_is_there() -> None:
    """Would catch a group whose commands are left out, and options that lose their dashes."""
    assert ' "captioner 1.2.3" ' in PAGE.splitlines()[0]
    plain = PAGE.replace("\\-", "-")
    for path in commands(typer.main.get_command(app)):
        command = typer.main.get_command(app)
        for name in path:
            command = command.commands[name]  # type: ignore[attr-defined]
        if not hasattr(command, "commands"):
            start = re.search(rf"^\.SS captioner {re.escape(' '.join(path))}(?: .*)?$", plain, re.MULTILINE)
            assert start, path
            section = plain[start.end() :].partition("\n.SS ")[0]
            for parameter in command.params:
                if parameter.param_type_name == "option" and not parameter.hidden:
                    assert re.search(rf"^\.B .*{parameter.opts[0]}\b", section, re.MULTILINE), (path, parameter.opts)


def test_text_is_never_a_request() -> None:
    assert _escape(".TH\n\\x -y") == "\\&.TH \\ex \\-y" and _escape("'a") == "\\&'a"


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_roff_reads_it() -> None:
    """Would catch a line that is taken for a request, and a font that is never ended."""
    command = ["groff", "-man", "-ww", "-Tascii", "-rLL=100n", str(CHECKOUT / "docs" / "captioner.1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr[:2000]
    printed = re.sub("\x1b\\[[0-9;]*m|.\x08", "", done.stdout)
    assert "captioner caption [OPTIONS] [IMG]..." in printed and "EXIT STATUS" in printed
