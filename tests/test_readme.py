"""The README is true: its commands run or parse, its Python runs, its tree is the project, its links lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from captioner import predictors
from captioner.backbones import default
from captioner.cli.app import app
from captioner.experiment import load_experiment
from captioner.predictors.pretrained import ALIASES
from scripts import tree
from scripts.pages import stale
from tests.conftest import CHECKOUT
from tests.test_layers import FLOORS
from tests.tiny import make_image, save_images, save_tiny

DOCS = sorted(path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "docs").rglob("*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", *DOCS]
FOLDERS = ("captioner", "preprocess", "eval", "scripts", "benchmarks", "docs", "examples", "tests")


def text(page: str) -> str:
    return (CHECKOUT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of the languages, as written."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text(page), re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def commands(page: str, program: str) -> list[list[str]]:
    """The arguments of every call of ``program`` in the shell blocks of a page, also behind a pipe or in ``$(...)``."""
    calls = []
    for block in blocks(page, "sh", "console", ""):
        for line in block.replace("\\\n", " ").splitlines():
            for match in re.finditer(rf"(?:^|\| |\$\()(?:\$ )?{program} ([^|)]*)", line):
                calls.append(shlex.split(match[1], comments=True))
    return calls


def parsed(arguments: list[str]) -> tuple[Any, dict[str, Any]]:
    """The (sub)command that ``captioner ARGUMENTS`` runs, and its parameters; wrong usage raises."""
    command = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    context = command.make_context(command.name, rest)
    return command, context.params


def section(page: str, title: str) -> str:
    """A page's text below the heading ``title``."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text(page), re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def here(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the files that pages talk about, and a random checkpoint in the default model's place."""
    monkeypatch.setitem(predictors.MODELS, "default", tiny)
    monkeypatch.setattr(default, "DEFAULT", tiny)
    folder = tmp_path / "here"
    save_images(folder / "holiday", 2)
    save_images(folder / "scans", 2)
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        make_image(ord(name[0])).save(folder / name)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/commands")])
def test_every_command_parses(page: str) -> None:
    """Would catch an option, a sub-command, a configuration or a setting that is gone or misspelled."""
    for arguments in commands(page, "captioner"):
        command, values = parsed(arguments)
        config = values.get("config", "CONFIG")
        if command.name == "train" and config != "CONFIG" and not config.endswith(".yaml"):
            load_experiment(config, values["settings"] or [])


@pytest.mark.parametrize("page", PAGES)
def test_every_make_word_and_module_exists(page: str) -> None:
    words = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    assert {arguments[0] for arguments in commands(page, "make")} <= words
    for arguments in commands(page, "python") + commands(page, "torchrun --nproc-per-node 2"):
        if "-m" in arguments:
            module = arguments[arguments.index("-m") + 1]
            assert importlib.util.find_spec(module), module
        elif arguments[0].endswith(".py"):
            assert (CHECKOUT / arguments[0]).is_file(), arguments[0]


def test_captioning_as_its_page_says(here: Path) -> None:
    """Every `captioner caption` of the page runs, with a random model in the default one's place."""
    calls = [
        call for call in commands("docs/captions.md", "captioner") if call[0] == "caption" and "--model" not in call
    ]
    assert len(calls) >= 7
    for call in calls:
        result = CliRunner().invoke(app, call, input="photo.jpg\nholiday/00.png\n")
        assert result.exit_code == 0, (call, result.output)


def test_python_as_the_readme_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = blocks("README.md", "python")
    assert shown
    for block in shown:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and printed[-1].startswith("missing.jpg missing.jpg: no such file")


def test_own_images_as_their_page_says(here: Path) -> None:
    """The five commands from images to a score run one after the other (one pass instead of twenty)."""
    block = next(iter(re.findall(r"```sh\n(.*?)```", section("docs/own-data.md", "From files to captions"), re.DOTALL)))
    files = save_images(here / "my-data" / "images", 30)
    lines = [f"{path.name}\ta {'red' if number % 2 else 'blue'} image" for number, path in enumerate(files)]
    (here / "my-data" / "captions.tsv").write_text("\n".join(lines) + "\n")
    quick = {"extract": ["--workers", "0"], "train": ["--set", "train.epochs=1", "--set", "model.hidden_dim=8"]}
    for line in block.splitlines():
        arguments = shlex.split(line, comments=True)[1:]
        result = CliRunner().invoke(app, [*arguments, *quick.get(arguments[0], [])])
        assert result.exit_code == 0, (line, result.output, result.exception)
    assert "BLEU-4" in result.stdout and "CIDEr-D|" in result.stdout


def test_every_folder_has_its_line() -> None:
    """Would catch a folder that was added, moved or removed without its line in the README."""
    listed = re.findall(r"^([\w.]+)/? ", blocks("README.md", "text")[-1], re.MULTILINE)
    assert all((CHECKOUT / name).exists() for name in listed)
    assert set(FOLDERS) - {"examples"} <= set(listed)


def test_the_tree_is_up_to_date() -> None:
    """Would catch a file that was added, moved or described anew without `make docs`."""
    assert not stale(tree.pages(), tree.DOCS / "tree"), "run: make docs"


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "examples/CREDITS.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text(page)):
        if not target.startswith("http"):
            assert ((CHECKOUT / page).parent / target).exists(), target


def test_the_architecture_page_is_true() -> None:
    """Would catch a registry that moved, or a layer that the page does not know."""
    page = text("docs/architecture.md")
    start = page.index("## Where a new part goes")
    section = page[start : page.index("\n## ", start)]
    for row in re.findall(r"^\|.*\|$", section, re.MULTILINE)[2:]:
        registry, line = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[3:5]]
        files = [name for name in re.findall(r"`([^`]+)`", registry) if "/" in name or name.endswith(".yaml")]
        assert bool(files) == bool(line), row
        for name in files:
            assert line.strip("`") in text(name), row
    for name in FLOORS:
        assert f"`{name.removeprefix('captioner.')}`" in page or name == "captioner", (
            f"{name} is in no layer of docs/architecture.md"
        )


def test_python_in_the_docs_compiles_and_yaml_loads() -> None:
    """Names that a page imports must exist."""
    import yaml

    for page in PAGES:
        for block in blocks(page, "yaml"):
            assert yaml.safe_load(block)
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names)


def test_every_feature_of_the_table_is_shown_by_a_test() -> None:
    """Would catch a yes in the table whose test was renamed or removed."""
    rows = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)` \|$", text("docs/captioning-folders.md"), re.MULTILINE)
    assert len(rows) > 20
    for path, name in rows:
        assert re.search(rf"^def {name}\(", text(path), re.MULTILINE), f"{path}::{name}"


def test_the_models_page_lists_the_aliases() -> None:
    """Would catch an alias that means another repository than the page says."""
    rows = re.findall(r"^\| `([\w-]+)` \| ([\w./-]+) \| [\d.]+[MB] \| ([^|]+) \|", text("docs/models.md"), re.MULTILINE)
    assert {name: (repository, terms) for name, repository, terms in rows} == {
        name: (record.repository, record.license) for name, record in ALIASES.items()
    }


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_too_long(page: str) -> None:
    assert len(text(page).splitlines()) <= (150 if page == "README.md" else 250)
