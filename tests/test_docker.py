"""The images of the Dockerfile: who they run as, what goes into them and, where Docker runs, that they caption."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib

import pytest

from tests.conftest import CHECKOUT

STAGE = re.compile(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", re.MULTILINE | re.DOTALL)


def stages() -> dict[str, str]:
    return dict(STAGE.findall((CHECKOUT / "Dockerfile").read_text(encoding="utf-8")))


def docker_runs() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=60).returncode == 0


def test_no_image_runs_as_root() -> None:
    """Would catch a target without a user, and a light image that is not the default."""
    found = stages()
    assert {"light", "full"} <= set(found) and list(found)[-1] == "light"
    for name in ("light", "full"):
        assert re.findall(r"^USER (\w+)", found[name], re.MULTILINE)[-1:] == ["captioner"], name


def test_what_the_wheel_is_made_of_reaches_the_build() -> None:
    """Would catch a file that pyproject.toml names and .dockerignore holds back, and one that is gone."""
    kept = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    project, files = settings["project"], settings["tool"]["setuptools"]["data-files"]
    named = {project["readme"], *project["license-files"], *(name for group in files.values() for name in group)}
    assert named <= kept and {"captioner", "data_manifest.yaml", "pyproject.toml"} <= kept
    assert all((CHECKOUT / name).exists() for name in kept)


@pytest.mark.slow
@pytest.mark.network
def test_the_light_image_captions() -> None:
    if not docker_runs():
        pytest.skip("needs a running Docker")
    build = ["docker", "build", "--quiet", "--tag", "captioner-test", str(CHECKOUT)]
    subprocess.run(build, check=True, capture_output=True, timeout=1200)
    run = ["docker", "run", "--rm", "--network", "none", "-v", f"{CHECKOUT}/examples:/work:ro", "captioner-test"]
    done = subprocess.run([*run, "caption", "dog.jpg"], capture_output=True, text=True, timeout=120)
    record = dict(line.split("\t") for line in (CHECKOUT / "examples/captions.tsv").read_text().splitlines())
    assert done.stdout.strip() == record["examples/dog.jpg"], done.stderr
    who = subprocess.run([*run[:-1], "--entrypoint", "id", run[-1], "-u"], capture_output=True, text=True, timeout=60)
    assert who.stdout.strip() == "1000"
