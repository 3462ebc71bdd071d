"""Shell completion: what a shell gets when the tab key is pressed, and what its installation writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HOME": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"} | variables
    command = [sys.executable, "-m", "captioner", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("captioner ca", {"caption"}),
        ("captioner caption --beam", {"--beam-size"}),
        ("captioner crf ", {"train", "score"}),
    ],
)
def test_commands_and_options_are_completed(line: str, expected: set[str], tmp_path: Path) -> None:
    """Would catch completion that is switched off, or that sees the first level only."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_CAPTIONER_COMPLETE": "complete_bash"}
    done = run(tmp_path, **words)
    assert done.returncode == 0 and expected <= set(done.stdout.split()), done


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_each_shell_has_its_script(shell: str, tmp_path: Path) -> None:
    done = run(tmp_path, "--show-completion", shell)
    assert done.returncode == 0 and "_CAPTIONER_COMPLETE" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_what_is_installed(tmp_path: Path) -> None:
    """Would catch a script that bash does not read, and files outside the home folder."""
    done = run(tmp_path, "--install-completion", "bash")
    assert done.returncode == 0, done.stderr
    shown = "source ~/.bashrc; complete -p captioner"
    loaded = subprocess.run(
        ["bash", "-c", shown], env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert "captioner" in loaded.stdout, loaded.stderr
