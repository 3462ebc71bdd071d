"""Captions made to break a tokenizer: fragments of every kind, strung together and damaged at random."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

_KINDS = json.loads((Path(__file__).parents[1] / "fixtures" / "nasty_fragments.json").read_text())
FRAGMENTS = [fragment for kind in _KINDS.values() for fragment in kind]


def captions(seed: int, count: int, real: Sequence[str] = ()) -> list[str]:
    """``count`` captions; every second one is a damaged one of ``real``, where there are any."""
    dice = random.Random(seed)
    return [_damaged(dice, dice.choice(real)) if real and i % 2 else _strung(dice) for i in range(count)]


def _strung(dice: random.Random) -> str:
    glue = dice.choice(["", " ", " ", "mixed"])
    pieces = dice.choices(FRAGMENTS, k=dice.randint(1, 9))
    return "".join(piece + (dice.choice(["", " ", "  "]) if glue == "mixed" else glue) for piece in pieces)


def _damaged(dice: random.Random, caption: str) -> str:
    for _ in range(dice.randint(1, 4)):
        at = dice.randint(0, len(caption))
        kind = dice.random()
        if kind < 0.6:
            caption = caption[:at] + dice.choice(FRAGMENTS) + caption[at:]
        elif kind < 0.8:
            caption = caption[:at] + caption[at + 1 :]
        else:
            caption = caption[:at] + caption[at:].swapcase()
    return caption
