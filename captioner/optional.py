"""Optional packages, imported through one door that says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from captioner.errors import MissingDependency, missing


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or raise ``MissingDependency`` naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(missing(module.partition(".")[0], extra)) from error
