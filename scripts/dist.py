"""Build wheel and source archive reproducibly, and check what PyPI will show.

    python -m scripts.dist [-o dist] [--no-isolation]

All times in the files are $SOURCE_DATE_EPOCH, or the time of the last commit. Without --no-isolation, the newest
setuptools that pyproject.toml allows is downloaded; other versions may write other bytes.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Annotated

import typer

from captioner.errors import UsageError

ROOT = Path(__file__).parents[1]


def source_date(root: Path) -> int:
    """Time of the archives' files, in seconds since 1970; raises ``UsageError`` without the setting and a commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given.isdecimal():
        return int(given)
    done = subprocess.run(["git", "-C", str(root), "log", "-1", "--format=%ct"], capture_output=True, text=True)
    if done.returncode:
        raise UsageError("this is no git checkout; set SOURCE_DATE_EPOCH to a time in seconds since 1970")
    return int(done.stdout)


def build(root: Path, output: Path, isolated: bool = True) -> list[Path]:
    """Build both files into ``output`` and check them; returns their paths."""
    seconds = source_date(root)
    options = [] if isolated else ["--no-isolation"]
    command = [sys.executable, "-m", "build", "--outdir", str(output), *options, str(root)]
    subprocess.run(command, check=True, env=os.environ | {"SOURCE_DATE_EPOCH": str(seconds)}, stdout=sys.stderr)
    files = sorted(output.glob("captioner-*"))
    for path in files:
        if path.name.endswith(".tar.gz"):
            path.write_bytes(normalized(path.read_bytes(), seconds))
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)], check=True)
    return files


def normalized(archive: bytes, seconds: int) -> bytes:
    """A tar.gz with the same files, sorted by name, with one time, one owner and plain permissions."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as source,
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=seconds) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted(source.getmembers(), key=lambda one: one.name):
            content = source.extractfile(member) if member.isfile() else None
            member.mtime, member.pax_headers = seconds, {}
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            target.addfile(member, content)
    return packed.getvalue()


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the files.")] = ROOT / "dist",
    no_isolation: Annotated[bool, typer.Option("--no-isolation", help="Build with what is installed.")] = False,
) -> None:
    """Build wheel and source archive, reproducibly, and check them."""
    for path in build(ROOT, output, not no_isolation):
        print(path)


if __name__ == "__main__":
    typer.run(main)
