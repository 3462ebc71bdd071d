"""Captions for photos: ``from captioner import load; load().caption("photo.jpg")``.

Importing this package loads nothing else; ``load`` brings torch with it when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioner.predictors.lrcn import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from captioner.predictors.lrcn import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
