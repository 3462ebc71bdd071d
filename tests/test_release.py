"""What a release is made with: workflows, templates, citation and the files that a repository's pages show.

The workflows themselves run on GitHub only; here they are read.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import captioner
from tests.conftest import CHECKOUT

yaml = pytest.importorskip("yaml", reason="needs the extra torch")
WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))
TEMPLATES = sorted((CHECKOUT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))


def read(path: Path) -> dict[Any, Any]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_the_version_is_the_same_everywhere() -> None:
    """Would catch a citation of another release, or a release without its changes."""
    citation = read(CHECKOUT / "CITATION.cff")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == captioner.__version__
    assert citation["license"] == project["license"]
    changes = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{captioner.__version__}] - {citation['date-released']}" in changes
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_what_github_reads(path: Path) -> None:
    """Would catch a job without a machine, a wait for a job that is not there, an unknown word of make, wide rights."""
    workflow = read(path)
    words = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(workflow) <= {"name", True, "permissions", "concurrency", "env", "jobs"}  # YAML reads "on" as true
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["runs-on"] and job["timeout-minutes"], name
        assert {job.get("needs", name)} <= set(workflow["jobs"]), name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@[\w./-]+", step["uses"]), step
            assert not re.search(r"\$\{\{\s*github\.event", step.get("run", "")), "text of strangers in a shell"
            for line in re.findall(r"^make (.*)", step.get("run", ""), re.MULTILINE):
                assert set(line.split()) <= words, line


def test_the_matrix_covers_what_pyproject_promises() -> None:
    """Would catch a version of Python that is supported and never tested, and a file of tests that is gone."""
    jobs = read(CHECKOUT / ".github/workflows/ci.yml")["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f">={matrix['python'][0]}" == project["requires-python"]
    promised = [line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: 3." in line]
    assert matrix["python"] == promised
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    for step in jobs["slow"]["steps"]:
        for name in re.findall(r"\btests/\S+", step.get("run", "")):
            assert (CHECKOUT / name).exists(), name


def test_a_release_is_published_without_a_token() -> None:
    """Would catch a secret that can leak, and rights that the job which runs our code does not need."""
    path = CHECKOUT / ".github/workflows/release.yml"
    jobs = read(path)["jobs"]
    assert "secrets." not in path.read_text(encoding="utf-8")
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and jobs["publish"]["environment"] == "pypi"
    assert not any("run" in step for step in jobs["publish"]["steps"])


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_issue_templates_are_forms(path: Path) -> None:
    """Would catch a form that GitHub does not show: an unknown kind of field, or two of one name."""
    form = read(path)
    assert form["name"] and form["description"]
    assert {field["type"] for field in form["body"]} <= {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    names = [field["id"] for field in form["body"]]
    assert len(names) == len(set(names)) and all(field["attributes"]["label"] for field in form["body"])


@pytest.mark.parametrize("name", ["SECURITY.md", "CODE_OF_CONDUCT.md", ".github/pull_request_template.md", "README.md"])
def test_links_of_the_repository_lead_somewhere(name: str) -> None:
    page = (CHECKOUT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page):
        assert target.startswith("http") or ((CHECKOUT / name).parent / target).exists(), target
