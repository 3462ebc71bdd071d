"""docs/commands.md and docs/commands/ are what the commands say."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from scripts.command_reference import LAYOUT, up_to_date
from scripts.pages import stale, write_or_check


def test_the_command_reference_is_up_to_date() -> None:
    """Would catch an option added, renamed or explained anew without `make docs`."""
    verdict = up_to_date()
    if verdict is None:
        pytest.skip(f"the pages were laid out by another version than {LAYOUT}")
    assert verdict, "run: make docs"


def test_stale_pages_are_found_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a page of a command that is gone, and a check that writes."""
    folder = tmp_path / "pages"
    pages = {tmp_path / "start.md": "start\n", folder / "one.md": "one\n"}
    with pytest.raises(typer.Exit):
        write_or_check(pages, folder, check=True)
    assert "start.md, one.md: out of date" in capsys.readouterr().err and not folder.exists()
    write_or_check(pages, folder)
    assert not stale(pages, folder)
    (folder / "gone.md").write_text("gone\n")
    (folder / "one.md").write_text("another\n")
    assert stale(pages, folder) == [folder / "one.md", folder / "gone.md"]
    write_or_check(pages, folder)
    write_or_check(pages, folder, check=True)
    assert not (folder / "gone.md").exists()
