"""The house has floors: a file imports only from lower ones, imports inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import CHECKOUT

# The longest matching name counts. Rooms on one floor do not know each other; a room knows itself.
FLOORS = {
    "captioner.errors": 0,
    "captioner.arrays": 0.5,
    "captioner.files": 0.5,
    "captioner.graphs": 0.6,
    "captioner.hub": 0.6,
    "captioner.java": 0.5,
    "captioner.registry": 0.5,
    "captioner.optional": 0.5,
    "captioner.parts": 0.5,
    "captioner.places": 0.6,
    "captioner.precision": 0.5,
    "captioner.provenance": 0.5,
    "captioner.seeds": 0.5,
    "captioner.subtitles": 0.5,
    "captioner.tables": 0.5,
    "captioner.skip_init": 0.5,
    "captioner.explain": 0.5,
    "captioner.devices": 0.5,
    "captioner.progress": 0.5,
    "captioner.plain_yaml": 0.8,
    "captioner.config": 1,
    "captioner.manifest": 1,
    "captioner.text": 1,
    "captioner.features.spec": 1.5,
    "captioner.decoding.config": 1.5,
    "captioner.model_file": 1.6,
    "captioner.tasks.base": 1.8,  # what a task is; the tasks themselves are far above
    "captioner.experiment": 1.9,
    "captioner.data": 2,
    "captioner.backbones": 2,
    "captioner.crf": 2.2,  # over clips
    "captioner.models": 2,
    "captioner.features": 2.5,  # where images and backbones meet, and what a CRF believes becomes a feature
    "captioner.decoding": 3,
    "captioner.metrics": 3,
    "captioner.checkpoint": 3,
    "captioner.tasks": 3.5,
    "captioner.train": 4,
    "captioner.export": 5,
    "captioner.predictors": 5,
    "captioner.search": 5.5,
    "captioner.web": 5.7,
    "captioner.writing": 5,
    "captioner.scale": 5.5,
    "captioner.doctor": 5.6,
    "captioner.cli": 6,
    "captioner.__main__": 7,
    "captioner": 7,  # the package's own file, which hands out load()
    "preprocess": 8,
    "eval": 8,
}
# What a room must not know although it lies lower.
CLOSED = {
    "captioner.train": (
        "captioner.tasks",
        "captioner.models",
        "captioner.data",
        "captioner.decoding",
        "captioner.metrics",
        "captioner.backbones",
        "captioner.features",
        "captioner.text",
    ),
    "captioner.features": ("captioner.models",),
    "captioner.decoding": ("captioner.models", "captioner.data", "captioner.backbones", "captioner.features"),
    "captioner.metrics": ("captioner.models", "captioner.data", "captioner.backbones", "captioner.features"),
}


def room(name: str) -> str | None:
    """The entry of ``FLOORS`` that the dotted ``name`` belongs to; None for other people's packages."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in FLOORS:
            return ".".join(parts[:end])
    return None


def imports(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names that ``source`` imports, at any depth; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def wrong_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """One line for each import of ``source``, the file of ``module``, that goes up or into a closed room."""
    own = room(module)
    assert own is not None, f"{module} is in no room; give it a floor in FLOORS"
    if own == "captioner" and module != "captioner":
        return [f"{module} is in no room; give it a floor in FLOORS"]
    found = []
    for name in imports(source, module, is_package):
        other = room(name)
        if other is None or other == own or name == "captioner.__version__":
            continue
        if FLOORS[other] >= FLOORS[own] or other in CLOSED.get(own, ()):
            found.append(f"{module} imports {name}")
    return found


def files(*packages: str) -> Iterator[tuple[Path, str, bool]]:
    for package in packages:
        for path in sorted((CHECKOUT / package).rglob("*.py")):
            parts = path.relative_to(CHECKOUT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            yield path, ".".join(parts[:-1] if is_package else parts), is_package


def test_every_import_goes_down() -> None:
    """Would catch a decoder that reaches for a model, or a model that reads a data set."""
    wrong = [
        line
        for path, module, is_package in files("captioner", "preprocess", "eval")
        for line in wrong_imports(path.read_text(encoding="utf-8"), module, is_package)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_check_itself_can_fail() -> None:
    """Would catch a walk that misses functions, relative imports, siblings, or submodules named in ``from``."""
    inside = "def f():\n    from captioner.predictors.lrcn import load\n"
    assert wrong_imports(inside, "captioner.text.vocabulary") == [
        "captioner.text.vocabulary imports captioner.predictors.lrcn.load"
    ]
    assert wrong_imports("from ..models import stack", "captioner.decoding.beam")
    assert wrong_imports("from . import stack", "captioner.models.lrcn") == []
    assert wrong_imports("from .. import models", "captioner.data.records")
    assert wrong_imports("from . import batching", "captioner.data", is_package=True) == []
    assert wrong_imports("from captioner import load", "captioner.config")
    assert wrong_imports("import eval.table", "captioner.cli.train")
    assert wrong_imports("import preprocess.own", "eval.table")
    assert wrong_imports("from captioner.data import records", "captioner.models.stack")
    assert wrong_imports("import captioner.nowhere", "captioner.nowhere") == [
        "captioner.nowhere is in no room; give it a floor in FLOORS"
    ]
    assert wrong_imports("import torch\nfrom captioner.data import images", "captioner.features.extract") == []
