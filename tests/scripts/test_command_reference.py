"""docs/commands.md is what the commands say."""

from __future__ import annotations

import pytest

from scripts.command_reference import LAYOUT, up_to_date


def test_the_command_reference_is_up_to_date() -> None:
    """Would catch an option added, renamed or explained anew without `make docs`."""
    verdict = up_to_date()
    if verdict is None:
        pytest.skip(f"the page was laid out by another version than {LAYOUT}")
    assert verdict, "run: make docs"
