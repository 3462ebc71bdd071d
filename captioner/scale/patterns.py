"""Brace expansion as in bash: ``{000..099}``, ``{a,b}``, nested. Not every shell has it, so it is done here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from captioner.errors import UsageError, shorten

MOST = 10_000_000
"""Most names that one pattern may expand to."""
RANGE = re.compile(r"(-?\d{1,15})\.\.(-?\d{1,15})(?:\.\.(-?\d{1,15}))?")


def expand_braces(pattern: str) -> list[str]:
    """Expand ``pattern`` to its names, in order; raises ``UsageError`` for more than ``MOST``.

    A range keeps the leading zeros of its first or last number. Braces without a comma or range stay as they are.
    """
    names: list[str] = []
    for name in _expand(pattern):
        names.append(name)
        if len(names) > MOST:
            raise UsageError(f"{shorten(pattern)} stands for more than {MOST:,} names; give fewer at a time")
    return names


def _expand(pattern: str) -> Iterator[str]:
    """Yield the names, the last braces changing fastest."""
    found = _first_group(pattern)
    if found is None:
        yield pattern
        return
    start, choices, end = found
    for choice in choices:
        for rest in _expand(pattern[end:]):
            yield pattern[:start] + choice + rest


def _first_group(pattern: str) -> tuple[int, Iterator[str] | list[str], int] | None:
    """(Start, alternatives, end) of the first group of braces; None if there is none."""
    for start, sign in enumerate(pattern):
        if sign != "{":
            continue
        cuts = _cuts(pattern, start)
        if cuts is None:
            continue
        inner = [pattern[left + 1 : right] for left, right in itertools.pairwise(cuts)]
        numbers = RANGE.fullmatch(inner[0])
        if len(inner) > 1:
            return start, (name for one in inner for name in _expand(one)), cuts[-1] + 1
        if numbers:
            return start, _numbers(*numbers.groups()), cuts[-1] + 1
    return None


def _cuts(pattern: str, start: int) -> list[int] | None:
    """Positions of the brace at ``start``, of its own commas, and of its closing brace; None if it is not closed."""
    depth, cuts = 0, [start]
    for place in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if pattern[place] == "," and depth == 1:
            cuts.append(place)
        if depth == 0:
            return [*cuts, place]
    return None


def _numbers(first: str, last: str, step: str | None) -> Iterator[str]:
    padded = any(re.match(r"-?0\d", text) for text in (first, last))
    width = max(len(first), len(last)) if padded else 0
    low, high = int(first), int(last)
    by = abs(int(step or 1)) or 1
    for number in range(low, high + 1, by) if low <= high else range(low, high - 1, -by):
        yield f"{number:0{width}d}"
