"""Run the Java programs of the package pycocoevalcap."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from captioner.errors import MissingDependency


def find_jar(what: str, name: str) -> Path:
    """The path of a program of pycocoevalcap, for ``what``; ``MissingDependency`` says what to install."""
    if not shutil.which("java"):
        raise MissingDependency(f"{what}: needs a Java runtime; install one, such as openjdk-17-jre-headless")
    spec = importlib.util.find_spec("pycocoevalcap")  # not imported, since that would also import pycocotools
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = next((Path(folder) / name for folder in folders if (Path(folder) / name).is_file()), None)
    if found is None:
        raise MissingDependency(f"{what}: needs {name} of pycocoevalcap: pip install 'captioner[java]'")
    return found


def run_java(what: str, jar: Path, options: Sequence[str], memory: str, text: str = "", main: str = "") -> str:
    """Run the program on ``text`` and return its output; the process has ended on return, also after an interrupt.

    ``main`` is the class to run, by default the one that the program's file names.
    """
    program = ["-cp", jar.name, main] if main else ["-jar", jar.name]
    command = ["java", f"-Xmx{memory}", "-Dfile.encoding=UTF-8", *program, *options]
    done = subprocess.run(command, cwd=jar.parent, input=text, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.strip()), f"exit status {done.returncode}")
        raise MissingDependency(f"{what}: its Java program cannot run here: {reason.strip()}")
    return done.stdout
