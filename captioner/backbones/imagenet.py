"""The names of ImageNet's 1,000 classes (ILSVRC 2012), in the order of networks' outputs.

They are those of torchvision's weights (BSD-3-Clause), which are short and distinct.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

FILE = Path(__file__).parents[1] / "assets" / "imagenet_classes.txt"


@cache
def imagenet_classes() -> tuple[str, ...]:
    """``("tench", "goldfish", ...)``."""
    return tuple(FILE.read_text(encoding="utf-8").splitlines())
