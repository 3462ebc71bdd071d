"""Progress on stderr."""

from __future__ import annotations

import io
import sys

import pytest

from captioner.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("hidden", [False, True])
def test_no_bar_without_a_terminal(hidden: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch control characters in a log file; lines are for it, unless nothing is wanted."""
    with progress_bar("images", 3, hidden=hidden) as bar:
        bar.advance()
        bar.update(2, 3)
        bar.say("half")
    assert capsys.readouterr() == ("", "" if hidden else "half\n")


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", watched := Terminal())
    with progress_bar("images", 3, done=1) as bar:
        bar.advance(1, "loss 0.5")
        bar.say("[epoch] 1")
        bar.update(3, 3)
    shown = watched.getvalue()
    assert all(text in shown for text in ("images", "3/3", "loss 0.5", "[epoch] 1"))
    with progress_bar("vgg16", count_bytes=True) as bar:
        bar.update(1_500_000, 3_000_000)
    assert "1.5/3.0 MB" in watched.getvalue()
