"""Finding sentences over any ``Decoder``.

A new search is one file with a function like ``search`` below and one line in ``SEARCHES``.
"""

from __future__ import annotations

import importlib
from typing import Any

from captioner.decoding.protocol import Decoder, How, Hypothesis, Search
from captioner.errors import UsageError

__all__ = ["SEARCHES", "Decoder", "How", "Hypothesis", "find_search", "search"]

SEARCHES: dict[str, str] = {
    "beam": "captioner.decoding.beam:beam_search",
    "greedy": "captioner.decoding.greedy:greedy",
    "sample": "captioner.decoding.sampling:sample",
}


def search(decoder: Decoder, state: Any, count: int, how: How) -> list[list[Hypothesis]]:
    """The best sentences found for each of the ``count`` images of ``state`` by the search that ``how`` names.

    Raises ``UsageError`` where there is no such search, or where it cannot do what ``how`` says.
    """
    return find_search(how.search)(decoder, state, count, how)


def find_search(name: str) -> Search:
    """The search called ``name``; ``UsageError`` with the names there are otherwise."""
    if name not in SEARCHES:
        raise UsageError(f"no search {name!r}; there are: {', '.join(SEARCHES)}")
    module, _, function = SEARCHES[name].partition(":")
    found: Search = getattr(importlib.import_module(module), function)
    return found
