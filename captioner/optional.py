"""Import optional packages; an error says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from captioner.errors import MissingDependency, missing


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or raise ``MissingDependency`` that names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(missing(module.partition(".")[0], extra)) from error
