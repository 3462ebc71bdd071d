"""One training run as a configuration, from YAML and ``--set``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from captioner.config import DataConfig, ModelConfig, TrainConfig, from_mapping
from captioner.decoding.config import DecodingConfig
from captioner.errors import ConfigError

SHIPPED = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Experiment:
    """One training run, as a YAML file in captioner/configs or the user's own."""

    name: str = "run"
    """Title in the log and the curve."""
    output: str = "runs/run"
    """Folder for checkpoints, log and curve."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)

    def __post_init__(self) -> None:
        if self.train.teachers and self.data.text:
            raise ConfigError("train.teachers describe images: data.text must be empty")
        if self.train.objective != "self_critical":
            return
        if self.data.text:
            raise ConfigError("train.objective self_critical describes images: data.text must be empty")
        if self.data.vocabulary_from not in ("", self.train.init_from):
            raise ConfigError("train.objective self_critical keeps train.init_from's words: empty data.vocabulary_from")


def load_experiment(source: str | Path, settings: Sequence[str] = ()) -> Experiment:
    """An experiment from a YAML file, or a shipped one by name, with ``section.key=value`` settings over it.

    Raises ``ConfigError`` for a missing file, bad YAML, unknown keys, wrong types and values out of range.
    """
    path = Path(source)
    if not path.exists() and (SHIPPED / f"{source}.yaml").exists():
        path = SHIPPED / f"{source}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise ConfigError(f"{source}: no such configuration file; shipped ones: {shipped}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a configuration is a mapping, not {type(values).__name__}")
    for setting in settings:
        _apply(values, setting)
    return from_mapping(Experiment, values, str(path))


def _apply(values: dict[str, Any], setting: str) -> None:
    """Put ``section.key=value`` into ``values``; the value is read as YAML."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: expected key=value")
    target = values
    *sections, last = key.strip().split(".")
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {setting}: {section} is a value, not a section")
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        target[last] = text
