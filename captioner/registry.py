"""Registries: tables from names to ``"module:attribute"``; the module is imported when an entry is used.

An entry does not slow ``import captioner``, and an entry whose packages are missing does no harm until it is used.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from captioner.errors import CaptionerError, ConfigError, shorten


def resolve(registry: Mapping[str, str], name: str, what: str, error: type[CaptionerError] = ConfigError) -> Any:
    """The object that ``registry[name]`` refers to, its module imported now.

    Raises ``error``, which names ``what`` the registry holds, the nearest entry and all others, for an unknown name.
    """
    if name not in registry:
        near = difflib.get_close_matches(name, registry, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise error(f"no {what} {shorten(name)}; {hint}choose one of {', '.join(registry)}")
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
