"""The command line's manners: quick help, one line per error, the right exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import captioner
from captioner.cli import app as cli
from captioner.errors import CaptionerError, DataError, UsageError, exit_status, print_error, printable
from captioner.progress import progress_bar
from captioner.tables import footnote, render
from scripts.command_reference import commands
from tests.conftest import CHECKOUT
from tests.tiny import save_images

HEAVY = ("torch", "torchvision", "transformers", "h5py", "numpy", "PIL", "sacrebleu", "matplotlib", "yaml")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "captioner", *arguments], capture_output=True, text=True, timeout=60)


def test_help_loads_nothing_heavy() -> None:
    """Would catch an import of torch at the head of a command's module, or in captioner/__init__.py."""
    program = (
        "import sys; import captioner; from captioner.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as leave: assert not leave.code\n"
        f"print('loaded:', *sorted(set({HEAVY}) & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines()[-1] == "loaded:"


def test_version_and_module_run() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"{captioner.__version__}\n")


@pytest.mark.parametrize(
    "path", list(commands(typer.main.get_command(cli.app))), ids=lambda path: " ".join(path) or "-"
)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    """Would catch an option without help, or a command without a first line."""
    command = typer.main.get_command(cli.app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    assert command.help or path == ()
    for parameter in command.params:
        # an argument whose name says it all may go without
        assert getattr(parameter, "help", None) or parameter.param_type_name == "argument", parameter.name
    assert CliRunner().invoke(cli.app, [*path, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (DataError("captions.tsv: line 3\nhas no tab"), 1, "error: captions.tsv: line 3\\nhas no tab\n"),
        (
            UsageError("--a and --b exclude each other"),
            2,
            "error: --a and --b exclude each other\n",
        ),
        (PermissionError(13, "Permission denied", "out.json"), 1, "error: out.json: Permission denied\n"),
    ],
)
def test_errors_become_one_line(
    error: Exception, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert cli.main() == status
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_as_good_as_the_null_device(closed: str, tmp_path: Path) -> None:
    """Would catch a crash of what asks for a terminal, messages on stdout, and a file that is opened as stderr."""
    program = f'"$0" -m captioner caption "$1" "$2" - --json -o "$3" {closed}'
    photos = [str(CHECKOUT / "examples" / name) for name in ("cat.jpg", "missing.jpg")]
    output = tmp_path / "out.json"
    command = ["sh", "-c", program, sys.executable, *photos, str(output)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, cwd=CHECKOUT)
    assert done.returncode == 1 and [one["image_id"] for one in json.loads(output.read_text())] == ["cat.jpg"]
    assert done.stdout.count("\n") == ("1>&-" not in closed) and "missing" not in done.stdout
    assert done.stderr.count("\n") == 2 * ("2>&-" not in closed)


def test_control_characters_never_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a file whose name clears the screen, writes a second line or turns the text around."""
    name = "a\x1b[2J\n\x7f\x9b\u2028\u202ebc\u00a0é👩\u200d🍳.jpg"
    assert printable(name) == "a\\x1b[2J\\n\\x7f\\x9b\\u2028\\u202ebc\u00a0é👩\u200d🍳.jpg"

    def fail() -> None:
        raise DataError(f"{name}: no such file")

    assert exit_status(fail) == 1
    print_error(name)
    with progress_bar("x") as bar:
        bar.say(name)
    print(render(["system"], [[name]]), footnote(name), sep="\n")
    out, err = capsys.readouterr()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", out + err)
    assert err.count("\n") == 3


def test_commands_print_through_one_door() -> None:
    """Would catch a message on stderr that is not escaped."""
    for path in [file for folder in ("captioner", "eval", "preprocess") for file in (CHECKOUT / folder).rglob("*.py")]:
        if path != CHECKOUT / "captioner" / "errors.py":
            assert not re.search(r"file=sys\.stderr", path.read_text(encoding="utf-8")), path


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an except clause so wide that bugs look like the user's mistakes."""

    def fail(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize("arguments", [("--nonsense",), ("nonsense",), ("data", "get"), ()], ids=" ".join)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_error_tree_is_the_one_drawn_in_its_module() -> None:
    """Would catch an error class that the drawing at the head of errors.py forgets."""
    from captioner import errors

    drawn = errors.__doc__ or ""
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, CaptionerError)]
    assert len(classes) > 5
    assert all(f"{c.__name__} " in drawn or f"{c.__name__}\n" in drawn for c in classes)


def test_every_extra_that_an_error_names_exists() -> None:
    """Would catch MissingDependency telling people to install an extra that pyproject.toml does not have."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    named = {
        (path.name, extra)
        for path in (CHECKOUT / "captioner").rglob("*.py")
        for extra in re.findall(r'require\("[\w.]+", (?:extra=)?"(\w+)"\)', path.read_text(encoding="utf-8"))
    }
    assert named
    assert {extra for _, extra in named} <= set(project["optional-dependencies"]), named


def test_data_commands(tmp_path: Path) -> None:
    """list, verify and get, as people use them, without a network."""
    listing = run("data", "list")
    assert listing.returncode == 0
    assert "flickr8k-images" in listing.stdout
    record = run("data", "list", "torchvision-vgg16")
    assert "sha256:        397923af" in record.stdout

    nothing = run("data", "verify", "--folder", str(tmp_path))
    assert (nothing.returncode, nothing.stdout) == (1, "")
    (tmp_path / "Flickr8k_text.zip").write_bytes(b"not it")
    wrong = run("data", "verify", "--folder", str(tmp_path))
    assert wrong.returncode == 1
    assert wrong.stdout.startswith("flickr8k-text\tMD5 ")

    by_hand = run("data", "get", "flickr30k-images", "--folder", str(tmp_path))
    assert by_hand.returncode == 1
    assert by_hand.stderr.startswith("error: flickr30k-images cannot be downloaded automatically: fill in the form")
    assert by_hand.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "a.jpg", "--batch-size", "1000000"],
        ["caption", "a.jpg", "--beam-size", "1000000"],
        ["caption", "a.jpg", "--num-samples", "100000000"],
        ["caption", "a.jpg", "--max-length", "100000000"],
        ["caption", "a.jpg", "--num-samples", "9", "--num-return-sequences", "10"],
        ["extract", "a.jpg", "-o", "a.h5", "--batch-size", "1000000"],
        ["extract", "a.jpg", "-o", "a.h5", "--workers", "1000000"],
        ["compare", "a.json", "b.json", "-r", "c.tsv", "--resamples", "1000000000"],
        ["compare", "a.json", "b.json", "-r", "c.tsv", "--trials", "1000000000"],
        ["crf", "train", "--clips", "a", "-f", "b", "-o", "c", "--folds", "1000000000"],
    ],
    ids=" ".join,
)
def test_no_option_takes_gigabytes(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch a number that is believed, and a machine that swaps until somebody ends the program."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path, 1)[0].rename("a.jpg")
    monkeypatch.setattr(sys, "argv", ["captioner", *arguments])
    try:
        status = cli.main()
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    assert status == 2
    assert re.search("between|range|at most|more than|less than or equal", capsys.readouterr().err)
