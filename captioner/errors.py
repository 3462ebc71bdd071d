"""Every error that captioner raises on purpose. Catch ``CaptionerError`` to catch them all.

    CaptionerError
    ├── UsageError           the command line or a call contradicts itself (exit status 2)
    ├── ConfigError          a configuration has an unknown key or a value out of range
    ├── DataError            a data set, caption file or manifest is invalid or unreadable
    │   └── ImageError       one image cannot be opened; carries ``path`` and ``reason``
    ├── BackboneError        a backbone is unknown or does not match its record
    │   └── MissingWeights   weights are not available; says which file to put where
    ├── FeatureStoreError    a feature file is damaged, unfinished or made by another backbone
    ├── SearchIndexError     a search index is missing, damaged, in use or made by another model
    ├── CheckpointError      a checkpoint is damaged or does not fit its use
    ├── GraphError           a network cannot be written, or a graph cannot be run, in ONNX
    └── MissingDependency    an optional package is not installed; says what to install

Messages are one line that says what is wrong and what to do. ``print_error`` prints them, and all
other messages, on stderr, with control characters escaped.
"""

from __future__ import annotations

import os
import re
import reprlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters of C0 and C1, separators of lines and paragraphs, and marks that set the direction of text."""

EXTRAS = {
    **dict.fromkeys(("filelock", "h5py", "torch", "torchvision", "yaml"), "torch"),
    **dict.fromkeys(("sacrebleu", "tabulate"), "score"),
}
"""The extra of each package that most commands need, but ``captioner caption`` does not."""

LONGEST_LINE = 2000
"""Most characters of a line on stderr; the middle of longer ones, such as of a name of megabytes, is left out."""


LONGEST = 600
"""Most characters of a message; a longer one, which quotes something from a file, loses its middle."""


class CaptionerError(Exception):
    """Base of all errors below; ``exit_status`` is what the command line returns. Its text is one printable line."""

    exit_status = 1

    def __str__(self) -> str:
        text = printable(super().__str__())
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 205]} ... {text[-200:]}"


class UsageError(CaptionerError):
    exit_status = 2


class ConfigError(CaptionerError):
    pass


class DataError(CaptionerError):
    pass


class ImageError(DataError):
    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str | Path, str]]:
        return type(self), (self.path, self.reason)  # errors are sent back from worker processes


class BackboneError(CaptionerError):
    pass


class MissingWeights(BackboneError):
    pass


class FeatureStoreError(CaptionerError):
    pass


class SearchIndexError(CaptionerError):
    pass


class CheckpointError(CaptionerError):
    pass


class GraphError(CaptionerError):
    """A network that cannot be written as an ONNX graph, or a graph that ONNX Runtime cannot run."""


class MissingDependency(CaptionerError):
    pass


def exit_status(program: Callable[[], object]) -> int:
    """Run ``program`` and return its exit status; an error meant for the user becomes one line on stderr."""
    _open_standard_streams()
    try:
        program()
    except CaptionerError as error:
        return _fail(str(error), error.exit_status)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _fail(missing(str(error.name), extra), 1)
    except OSError as error:  # a full disk, a folder without write permission, ...
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    return 0


def missing(package: str, extra: str) -> str:
    """The message about a package that is not installed and is part of ``extra``."""
    return f"this needs the package {package}; install it with: pip install 'captioner[{extra}]'"


def _fail(message: str, status: int) -> int:
    print_error(f"error: {' '.join(message.split())}")
    return status


def print_error(line: object) -> None:
    """Print a line on stderr, shortened and with control characters escaped."""
    text = str(line)
    if len(text) > LONGEST_LINE:
        text = f"{text[: LONGEST_LINE // 2]} ... {text[-LONGEST_LINE // 2 :]}"
    print(printable(text), file=sys.stderr, flush=True)


def warn(message: object) -> None:
    """Print a note on stderr, as ``print_error`` does."""
    print_error(f"note: {message}")


def counted(number: int, what: str) -> str:
    """``number`` and the noun ``what``, in the plural unless the number is 1."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """``text`` with escapes for characters that break lines, control a terminal or change the direction of text."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shorten(value: Any) -> str:
    """The ``repr`` of ``value`` for messages, limited to a few items and levels."""
    return reprlib.repr(value)


def _open_standard_streams() -> None:
    """Open the null device for streams that ``2>&-`` closed: the next file opened would get their numbers otherwise."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(handle, True)
            setattr(sys, name, open(handle, mode, encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115
