"""What the doctor finds: packages by extra, a damaged model, caches, devices."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import typer

from captioner import doctor
from captioner.cli.app import app
from captioner.doctor import (
    DEFAULT_SHA256,
    NEEDS,
    Package,
    examine,
    find_caches,
    find_devices,
    model_problem,
    read_packages,
)
from captioner.predictors import MODELS
from tests.conftest import CHECKOUT

REQUIREMENTS = [
    "numpy>=1.26",
    'h5py>=3.10; extra == "torch"',
    'captioner[score]; extra == "torch"',
    'sacrebleu>=2.4; extra == "score"',
    "nothing-of-this-name (>=1.0) ; extra == 'heif'",
    'numpy>=999.1; extra == "all"',
    'captioner[torch,heif]; extra == "all"',
    'pytest>=8; extra == "dev"',
]


def test_packages_are_sorted_by_extra() -> None:
    """Would catch extras inside extras that are left out, tools of development, and an old release that passes."""
    found = read_packages(REQUIREMENTS)
    assert {extra: [one.name for one in packages] for extra, packages in found.items()} == {
        "": ["numpy"],
        "torch": ["h5py", "sacrebleu"],
        "score": ["sacrebleu"],
        "heif": ["nothing-of-this-name"],
        "all": ["numpy", "h5py", "sacrebleu", "nothing-of-this-name"],
    }
    assert found["torch"][0] == Package("h5py", "3.10", metadata.version("h5py")) and not found["torch"][0].problem
    assert found["heif"][0].problem == "nothing-of-this-name is missing"
    assert found["all"][0].problem == f"numpy {metadata.version('numpy')} is older than 999.1"


def test_versions_are_compared_as_numbers() -> None:
    """Would catch 2.10 that is older than 2.9, and local versions and zeros that confuse."""
    assert not Package("a", "2.9", "2.10.1+cu126").problem
    assert not Package("a", "2.0.0", "2").problem
    assert not Package("a", "", "0").problem
    assert Package("a", "2.1", "2.0rc5").problem


def test_extras_within_each_other_end() -> None:
    assert read_packages(['captioner[b]; extra == "a"', 'captioner[a]; extra == "b"']) == {"": [], "a": [], "b": []}


def test_every_command_and_extra_is_in_the_table() -> None:
    """Would catch a command that the doctor does not know, one that is gone, and an extra that no command needs."""
    names = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert {re.split(r"[ ,]", feature)[0] for feature in NEEDS} == names
    extras = set(tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    used = {extra for needed in NEEDS.values() for extra in needed}
    offline = {"all", "coco", "smt", "tacos"}  # of every reader, of eval and of preprocess
    assert used == extras - offline - set(doctor.TOOLS)


def test_an_installation_that_fell_behind_its_checkout_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch commands that are said to lack extras, which only the metadata of an old installation lacks."""
    monkeypatch.setattr(doctor, "__version__", "99.0")
    (problem,) = [text for text in examine().problems("") if "installed as" in text]
    assert "pip install -e . again" in problem
    monkeypatch.undo()
    assert not [text for text in examine().problems("") if "installed as" in text]


def test_a_damaged_model_is_found(tmp_path: Path) -> None:
    """Would catch a check of header or weights alone, an error that ends the command, and an older model's digest."""
    assert model_problem(MODELS["default"]) is None
    damaged = bytearray(MODELS["default"].read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    assert f"instead of {DEFAULT_SHA256[:8]}; install" in (model_problem(tmp_path / "damaged.safetensors") or "")
    (tmp_path / "short.safetensors").write_bytes(damaged[:1000])
    assert model_problem(tmp_path / "short.safetensors")
    assert "no such checkpoint" in (model_problem(tmp_path / "none.safetensors") or "")


def test_caches_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch links that count twice, and a folder that has to be there."""
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CAPTIONER_INDEX", raising=False)
    (tmp_path / "cache/data").mkdir(parents=True)
    (tmp_path / "cache/data/file").write_bytes(b"x" * 100)
    (tmp_path / "cache/link").symlink_to(tmp_path / "cache/data/file")
    sizes = {one.name: one.bytes for one in find_caches()}
    assert sizes["captioner"] == 100 and sizes["search index"] is None


def test_without_torch_the_processor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a doctor who needs what he looks for."""
    monkeypatch.setitem(sys.modules, "torch", None)
    (only,), problem = find_devices()
    assert only.name == "cpu" and only.bfloat16 is None and problem == "torch is not installed"


def test_devices_of_torch() -> None:
    found, problem = find_devices()
    assert problem is None and found[0].name == "cpu" and isinstance(found[0].bfloat16, bool)


@pytest.mark.gpu
def test_gpus_are_listed_with_their_memory() -> None:
    found, _ = find_devices()
    assert any(one.name == "cuda:0" and (one.bytes or 0) > 1e9 for one in found)
