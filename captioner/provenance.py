"""The provenance of a result: versions, hardware and commit, as a dictionary that is saved with every result."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("captioner", "torch", "torchvision", "transformers", "numpy", "h5py", "sacrebleu")


def provenance() -> dict[str, str]:
    """Versions of the packages in ``PACKAGES``, Python, processor, core count and, in a checkout, the commit."""
    versions = {"python": platform.python_version(), "machine": _processor(), "cores": str(os.cpu_count())}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = _commit()
    if commit:
        versions["commit"] = commit
    return versions


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of the checkout that contains this file, with ``+changes`` if it has uncommitted changes."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    try:
        run = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+changes"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None
