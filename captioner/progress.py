"""Progress on stderr: a bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from captioner.errors import print_error, printable


class Progress(Protocol):
    """The interface of progress reports."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count items that are done; ``note`` is shown after the bar."""
        ...

    def update(self, done: int, total: int | None) -> None:
        """Set the numbers of items that are done and of all items (None if unknown)."""
        ...

    def say(self, line: str) -> None:
        """Print a line on stderr, above the bar."""
        ...


class Lines:
    """Progress without a terminal: lines on stderr, or with ``silent`` nothing."""

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent

    def advance(self, count: int = 1, note: str = "") -> None:
        pass

    def update(self, done: int, total: int | None) -> None:
        pass

    def say(self, line: str) -> None:
        if not self.silent:
            print_error(line)


class Bar:
    """A progress bar of rich."""

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=count, note=note)

    def update(self, done: int, total: int | None) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def say(self, line: str) -> None:
        self._progress.console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(
    label: str,
    total: int | None = None,
    *,
    done: int = 0,
    count_bytes: bool = False,
    keep: bool = True,
    hidden: bool = False,
) -> Iterator[Progress]:
    """A bar with the remaining time on stderr if that is a terminal, else ``Lines``, silent if ``hidden``.

    ``count_bytes`` shows numbers as file sizes. The finished bar stays on the terminal unless ``keep`` is False.
    """
    if hidden or not sys.stderr.isatty():
        yield Lines(silent=hidden)
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn(label),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn() if count_bytes else rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}"),
    )
    # rich would redirect stdout to the bar's console, which is wrong if stdout is a file and stderr a terminal.
    with rich_progress.Progress(
        *columns, console=Console(stderr=True), transient=not keep, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        yield Bar(bar, bar.add_task(label, total=total, completed=done, note=""))
