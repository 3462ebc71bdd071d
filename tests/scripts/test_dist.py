"""Wheel and source archive: the same bytes twice, complete, and working in a fresh environment."""

from __future__ import annotations

import email
import gzip
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import captioner
from captioner.errors import UsageError
from scripts.dist import build, normalized, source_date
from tests.conftest import CHECKOUT

LEFT = (".*", "*.egg-info", "__pycache__", "build", "dist", "reports", "runs", "site")


def test_archives_differ_in_nothing_but_content() -> None:
    """Would catch times, owners and an order that come from the machine, and a program that cannot be run any more."""
    made = []
    for turn, names in enumerate((["b", "a"], ["a", "b"])):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.uid, member.mode = 1, 1000.5 + turn, turn, 0o700 + turn
                archive.addfile(member, io.BytesIO(name.encode()))
        made.append(normalized(packed.getvalue(), 5))
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(made[0]))) as archive:
        members = archive.getmembers()
        assert [(one.name, one.mtime, one.mode) for one in members] == [("a", 5, 0o755), ("b", 5, 0o755)]
        assert archive.extractfile("b").read() == b"b"  # type: ignore[union-attr]


def test_the_time_is_the_one_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "123")
    assert source_date(tmp_path) == 123
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        source_date(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    """Wheel and source archive, built twice from copies whose files have other times."""
    for package in ("build", "twine"):
        pytest.importorskip(package, reason="needs the extra docs")
    if int(__import__("setuptools").__version__.split(".")[0]) < 77:
        pytest.skip("needs setuptools 77")
    folder = tmp_path_factory.mktemp("dist")
    outputs = []
    for turn in ("first", "second"):
        shutil.copytree(CHECKOUT, folder / turn, symlinks=True, ignore=shutil.ignore_patterns(*LEFT))
        for path in (folder / turn).rglob("*"):
            if turn == "second" and path.is_file() and not path.is_symlink():
                os.utime(path, (1e9, 1e9))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
            outputs.append(build(folder / turn, folder / f"{turn}-dist", isolated=False))
        shutil.rmtree(folder / turn)
    return outputs


@pytest.mark.slow
def test_the_same_sources_give_the_same_bytes(built: list[list[Path]]) -> None:
    first, second = built
    assert [path.suffix for path in first] == [".whl", ".gz"]
    for one, other in zip(first, second, strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes(), one.name


@pytest.mark.slow
def test_each_holds_what_it_should(built: list[list[Path]]) -> None:
    """Would catch a wheel with eval or tests, without the default model or a license, and an sdist that cannot test."""
    wheel, archive = built[0]
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
        about = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(files.read(about))
    info = f"captioner-{captioner.__version__}"
    assert {name.partition("/")[0] for name in names} <= {"captioner", f"{info}.dist-info", f"{info}.data"}
    for name in ("assets/default.safetensors", "data_manifest.yaml", "py.typed", "web/openapi.json"):
        assert f"captioner/{name}" in names
    assert f"{info}.data/data/share/man/man1/captioner.1" in names
    assert f"{info}.dist-info/licenses/NOTICE" in names and metadata["Version"] == captioner.__version__
    with tarfile.open(archive) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    for name in ("tests/conftest.py", "mkdocs.yml", "CITATION.cff", "SECURITY.md", "docs/index.md", "Makefile"):
        assert name in held, name


@pytest.mark.slow
def test_the_wheel_captions_in_a_fresh_environment(built: list[list[Path]], tmp_path: Path) -> None:
    """Would catch a file that the package needs and the wheel does not have.

    The dependencies are those of this environment; captioner itself is not.
    """
    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    variables = {"base": str(home), "platbase": str(home)}
    place = Path(sysconfig.get_path("purelib", "venv", variables))
    here = [path for path in sys.path if path.rstrip("/").endswith("site-packages")]
    run = {"check": True, "capture_output": True, "text": True, "cwd": tmp_path, "timeout": 300}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    python = str(scripts / "python")
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*install, str(built[0][0])], env=environment, **run)  # type: ignore[call-overload]
    (place / "dependencies.pth").write_text("\n".join(here) + "\n")
    where = [python, "-c", "import captioner; print(captioner.__file__)"]
    shown = subprocess.run(where, env=environment, **run)  # type: ignore[call-overload]
    assert Path(shown.stdout.strip()).is_relative_to(place)
    photo = str(CHECKOUT / "examples" / "dog.jpg")
    done = subprocess.run([str(scripts / "captioner"), "caption", photo], env=environment, **run)  # type: ignore[call-overload]
    record = dict(line.split("\t") for line in (CHECKOUT / "examples/captions.tsv").read_text().splitlines())
    assert done.stdout.strip() == record["examples/dog.jpg"]
    assert (home / "share/man/man1/captioner.1").is_file()
    doctor = subprocess.run([str(scripts / "captioner"), "doctor"], env=environment, **run)  # type: ignore[call-overload]
    assert "whole, " in doctor.stdout and captioner.__version__ in doctor.stdout
