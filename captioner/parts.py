"""Parts of a list of work: ``2/4`` is every fourth item from the second on, for one of four processes."""

from __future__ import annotations

import re

from captioner.errors import UsageError, shorten

MOST_PARTS = 9999


def find_part(text: str) -> tuple[int, int] | None:
    """``2/4`` as (2, 4), the second of four; None for anything else, and for more than ``MOST_PARTS``."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= MOST_PARTS:
        return None
    return int(match[1]), int(match[2])


def parse_part(text: str) -> tuple[int, int]:
    """``find_part`` for a command line's text; raises ``UsageError`` if it is invalid."""
    part = find_part(text)
    if part is None:
        raise UsageError(f"part {shorten(text)} should be like 2/4: the second of four, of {MOST_PARTS} at most")
    return part
