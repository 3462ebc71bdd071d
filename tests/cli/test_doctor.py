"""``captioner doctor``, and whether its table is true of the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from captioner import doctor
from captioner.cli.app import app
from captioner.doctor import NEEDS
from tests.conftest import CHECKOUT

ALL = ("", *sorted({extra for needed in NEEDS.values() for extra in needed}))
WITHOUT = """
import contextlib, io, json, sys
class Missing:
    names = {"av", "cv2", "fsspec", "h5py", "jinja2", "matplotlib", "pillow_heif", "pyarrow", "sacrebleu", "starlette",
             "tabulate", "torch", "torchvision", "transformers", "usearch", "uvicorn", "yaml"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from captioner.cli.app import main
said = {}
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["captioner", *arguments]
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main()
        except SystemExit as leaving:
            status = leaving.code
    said[" ".join(arguments)] = [status, error.getvalue()]
print(json.dumps(said))
"""


def pretend(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Metadata with a package for each extra, all there but that of one."""
    lines = [f'{"nowhere" if extra == missing else "numpy"}>=1; extra == "{extra}"' for extra in ALL if extra]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["numpy>=1.26", *lines])
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")


def test_what_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an exit status that stops a script, and a command that is said to work although it does not."""
    pretend(monkeypatch, missing="web")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    said = {line[0]: line[1].strip() for line in lines if len(line) > 1}
    assert said["web"] == "nowhere is missing" and said["serve"] == "needs: pip install 'captioner[web]'"
    assert said["search"] == said["export"] == "ready"
    assert said["default.safetensors"].startswith("intact, 15.0 MB")


def test_json_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, missing="score")
    result = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["model_problem"] is None
    assert found["commands"]["compare"] == ["score"] and found["commands"]["caption"] == []
    assert found["problems"]["score"] == ["nowhere is missing"] and found["problems"]["captioner"] == []
    assert found["caches"] and found["devices"][0]["name"] == "cpu"


def test_a_checkout_that_is_not_installed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", requires)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0 and "used without being installed" in result.stdout
    assert CliRunner().invoke(app, ["doctor", "--json"]).exit_code == 0


def test_the_table_is_true_of_the_commands(tmp_path: Path) -> None:
    """Each command runs without the packages of the extras, or names the extra that the doctor names."""
    photo = str(CHECKOUT / "examples" / "cat.jpg")
    (tmp_path / "captions.tsv").write_text("a.jpg\ta cat\n")
    (tmp_path / "captions.json").write_text('[{"image_id": "a.jpg", "caption": "a cat"}]')
    (tmp_path / "others.json").write_text('[{"image_id": "a.jpg", "caption": "a dog"}]')
    index = str(tmp_path / "index")
    results, references = str(tmp_path / "captions.json"), str(tmp_path / "captions.tsv")
    calls = {
        "caption": ["caption", photo],
        "caption --model blip, hf:...": ["caption", "--model", "blip", photo],
        "classify": ["classify", photo],
        "index": ["index", photo, "--index", index],
        "search": ["search", "a cat", "--index", index],
        "serve": ["serve", "--port", "0"],
        "models": ["models"],
        "alt": ["alt", str(CHECKOUT / "CONTRIBUTING.md")],
        "extract": ["extract", photo, "-o", str(tmp_path / "f.h5")],
        "train": ["train", "mnist-lenet"],
        "score": ["score", results, "-r", references],
        "compare": ["compare", results, str(tmp_path / "others.json"), "-r", references],
        "data": ["data", "list"],
        "doctor": ["doctor"],
    }
    command = [sys.executable, "-c", WITHOUT, json.dumps(list(calls.values()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    for feature, arguments in calls.items():
        status, error = said[" ".join(arguments)]
        needed = NEEDS[feature]
        assert bool(status) == bool(needed), (feature, status, error)
        assert not needed or any(f"captioner[{extra}]" in error for extra in needed), (feature, error)
