"""Captions for photos: ``from captioner import load; load().caption("photo.jpg")``.

Importing this package does not import torch; ``load`` does when it is called.
"""

from __future__ import annotations

from captioner.predictors import load

__version__ = "0.2.0"
__all__ = ["__version__", "load"]
