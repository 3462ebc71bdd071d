"""Models of the Hugging Face hub: their files on disk, and whether more may be downloaded.

Imports neither transformers nor torch, which ``captioner models`` and errors about missing files do not need.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from captioner.files import cache_folder

REPOSITORY = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
"""The name of a repository: owner/name, or only a name for a few old ones."""


def hub_cache() -> Path:
    """The download folder of Hugging Face's libraries: ``$HF_HUB_CACHE``, else below ``$HF_HOME``."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen)
    home = os.environ.get("HF_HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(home) if home else Path(cache) / "huggingface") / "hub"


def model_folder(name: str) -> Path:
    """Where files of the model ``name`` may be put by hand."""
    return cache_folder() / "transformers" / name


def model_source(name: str) -> str:
    """A folder given as such, one in our cache, or the model's name on the hub."""
    if Path(name).is_dir():
        return name
    kept = model_folder(name)
    return str(kept) if kept.is_dir() else name


def cached_bytes(name: str) -> int:
    """Bytes of the model's files on disk, put there by hand or by the hub's client; 0 if there are none."""
    kept = model_folder(name)
    blobs = hub_cache() / f"models--{name.replace('/', '--')}" / "blobs"
    files = (path for folder in (kept, blobs) if folder.is_dir() for path in folder.iterdir())
    return sum(path.stat().st_size for path in files if path.is_file() and not path.name.endswith(".incomplete"))


def may_download() -> bool:
    """Whether the hub's name resolves, or a proxy is set, and ``HF_HUB_OFFLINE`` does not forbid its use.

    Without this check the hub's client would retry for minutes.
    """
    from urllib.request import getproxies  # slow to import, and the default model does not need it

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        return bool(getproxies() or socket.getaddrinfo(address.hostname, address.port or 443))
    except OSError:
        return False
