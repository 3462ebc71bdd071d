"""Experiments from YAML files and ``--set section.key=value``."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captioner.config import Experiment, check_keys, choose, convert, from_mapping
from captioner.errors import ConfigError
from captioner.plain_yaml import parse_yaml, read_yaml
from captioner.tasks.base import TASKS, find_task

SHIPPED = Path(__file__).parent / "configs"
COMMON = tuple(item.name for item in dataclasses.fields(Experiment) if item.name not in ("task", "config"))
"""Keys of a configuration that all tasks share."""


def load_experiment(source: str | Path, settings: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file, or a shipped one by name, and apply ``section.key=value`` settings.

    Raises ``ConfigError`` for a missing file, bad YAML, unknown keys, wrong types and values out of range.
    """
    path = Path(source)
    if not path.exists() and (SHIPPED / f"{source}.yaml").exists():
        path = SHIPPED / f"{source}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise ConfigError(f"{source}: no such configuration file; shipped ones: {shipped}")
    values = read_yaml(path) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a configuration is a mapping, not {type(values).__name__}")
    for setting in settings:
        _apply(values, setting)
    return parse_experiment(values, str(path))


def parse_experiment(values: Mapping[str, Any], where: str) -> Experiment:
    """The experiment that ``values`` describe; ``where`` starts the messages of a ``ConfigError``."""
    if "task" not in values:
        raise ConfigError(f"{where}: no task; add one of {', '.join(TASKS)}, as in task: captioning")
    task = find_task(str(values["task"]))
    sections = [item.name for item in dataclasses.fields(task.config)]
    check_keys(values, ["task", *COMMON, *sections], where)
    config: Any = from_mapping(task.config, {name: values[name] for name in sections if name in values}, where)
    hints = typing.get_type_hints(Experiment)
    common = {name: convert(hints[name], values[name], f"{where}: {name}") for name in COMMON if name in values}
    experiment = Experiment(task.name, config, **common)
    try:
        if experiment.train.metric:
            choose("train.metric", experiment.train.metric, task.metrics)
        task.check(experiment)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return experiment


def _apply(values: dict[str, Any], setting: str) -> None:
    """Put ``section.key=value`` into ``values``; only lists, sections and quoted texts are read as YAML."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: expected key=value")
    target = values
    *sections, last = key.strip().split(".")
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {setting}: {section} is a value, not a section")
    text = text.strip()
    structured = text in ("null", "~") or text.startswith(("[", "{", '"', "'"))
    target[last] = parse_yaml(text, f"--set {key}") if structured else text
