"""YAML as mappings, lists, None and strings: types are not guessed, no code runs, and keys must be unique."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from captioner.errors import CaptionerError, ConfigError, shorten
from captioner.files import read_text


class _Texts(yaml.BaseLoader):  # type: ignore[misc]  # PyYAML has no annotations
    """YAML whose scalars are strings, except that empty ones and null are None; keys must be unique."""

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        return None if node.style is None and value in ("", "~", "null", "Null", "NULL") else value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            names = [key.value for key, _ in node.value]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConstructorError(None, None, f"the key {shorten(twice)} occurs twice", node.start_mark)
        return mapping


def parse_yaml(text: str, where: str, error: type[CaptionerError] = ConfigError) -> Any:
    """Parse YAML to mappings, lists, None and strings, which readers convert to the types of their fields.

    YAML itself would read 2024-01-15 as a date, 1.10 as 1.1, 12:30 as 750 and off as false. Raises ``error``.
    """
    try:
        return yaml.load(text, _Texts)  # a BaseLoader makes only strings
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        raise error(f"{where}: not YAML: {textwrap.shorten(str(cause), 400)}") from cause


def read_yaml(path: Path, error: type[CaptionerError] = ConfigError) -> Any:
    """The value of a YAML file, parsed by ``parse_yaml``."""
    return parse_yaml(read_text(path, error), str(path), error)
