"""The manual page captioner(1), from the commands and their options; ``scripts.command_reference`` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

HEAD = """\
.TH CAPTIONER 1 "" "captioner {version}" "User Commands"
.SH NAME
captioner \\- caption photos and videos, and train and score the models that do
.SH SYNOPSIS
.B captioner
.I COMMAND
[options] [arguments]
.SH DESCRIPTION
{about}
.SH OPTIONS
{options}
.SH COMMANDS
"""
TAIL = """\
.SH EXIT STATUS
0 done; 1 failed, or something was skipped; 2 wrong usage; 130 interrupted.
.SH ENVIRONMENT
.TP
.B CAPTIONER_CACHE
Folder of downloads and of the default index.
.TP
.B CAPTIONER_INDEX
Folder of the index that captioner index, search and serve use.
.TP
.B CAPTIONER_API_KEY
Sent to the server that \\-\\-model http://... names.
.TP
.B HF_HOME, TORCH_HOME
Folders where Hugging Face's libraries and torch keep models.
"""


def man_page(command: Any, version: str) -> str:
    """The page in roff, for a click command and its subcommands."""
    context = command.make_context("captioner", [], resilient_parsing=True)
    head = HEAD.format(
        version=version, about=_paragraphs(command.help or ""), options="\n".join(_options(command, context))
    )
    return head + "\n".join(_commands(command, context, ())) + "\n" + TAIL


def _commands(group: Any, context: Any, path: tuple[str, ...]) -> Iterator[str]:
    for name, command in group.commands.items():
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        if getattr(command, "commands", None):
            yield from _commands(command, inner, (*path, name))
            continue
        usage = " ".join(command.collect_usage_pieces(inner))
        yield f".SS captioner {_escape(' '.join((*path, name, usage)))}"
        yield _paragraphs(command.help or "")
        yield from _options(command, inner)


def _options(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and "--help" not in record[0]:
            yield f".TP\n.B {_escape(record[0])}\n{_escape(record[1])}"


def _paragraphs(text: str) -> str:
    """A help text's paragraphs, each on one line; click's mark that keeps line breaks is removed."""
    parts = [" ".join(part.replace("\b", "").split()) for part in re.split(r"\n\s*\n", text.strip())]
    return "\n.PP\n".join(_escape(part) for part in parts)


def _escape(text: str) -> str:
    """Text that roff prints literally: backslashes and hyphens are escaped, and no line is taken for a request."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text
