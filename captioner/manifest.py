"""The public files listed in data_manifest.yaml: verify copies on disk and download them."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.errors import DataError, shorten
from captioner.files import cache_folder, sha256, torch_checkpoints
from captioner.optional import require
from captioner.plain_yaml import read_yaml

# In a checkout this is a link to the file in its top folder, in a wheel a copy.
MANIFEST = Path(__file__).parent / "data_manifest.yaml"
FORMAT, VERSION = "captioner-data-manifest", "1"
Progress = Callable[[int, int | None], None]
"""Called with the bytes present and the bytes expected (None: unknown)."""


@dataclass(frozen=True)
class Entry:
    """One data set or weight file."""

    name: str
    kind: str
    """dataset or weights."""
    about: str
    license: str
    citation: str
    homepage: str
    file: str = ""
    """File name on disk."""
    url: str = ""
    """The address for ``download``."""
    hub: str = ""
    """A Hugging Face model repository, which keeps and checks its own files."""
    manual: str = ""
    """Instructions for a file that must be downloaded by hand."""
    bytes: int | None = None
    sha256: str = ""
    sha256_prefix: str = ""
    """First digits of the SHA-256, if the full one is not published."""
    md5: str = ""

    @property
    def path(self) -> Path:
        """The path for ``captioner data get``; weights go to torchvision's folder."""
        folder = torch_checkpoints() if self.kind == "weights" else cache_folder() / "data"
        return folder / self.file

    @property
    def has_digest(self) -> bool:
        return bool(self.sha256 or self.sha256_prefix or self.md5)


def read_manifest(path: Path = MANIFEST) -> dict[str, Entry]:
    """Read all entries, by name. Raises ``DataError`` for another format and for unknown or missing fields."""
    document = read_yaml(path, DataError)
    if not isinstance(document, dict) or (document.get("format"), document.get("version")) != (FORMAT, VERSION):
        raise DataError(f"{path}: not a {FORMAT} of version {VERSION}")
    entries = document.get("entries")
    if not isinstance(entries, dict):
        raise DataError(f"{path}: entries must be a mapping of names to fields")
    return {str(name): _entry(str(name), fields, path) for name, fields in entries.items()}


def find(manifest: dict[str, Entry], name: str) -> Entry:
    """The entry called ``name``; raises ``DataError``, which gives the nearest names, if there is none."""
    if name in manifest:
        return manifest[name]
    near = difflib.get_close_matches(name, manifest, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see: captioner data list"
    raise DataError(f"{name}: not in the manifest; {hint}")


def problem(entry: Entry, path: Path) -> str | None:
    """What is wrong with the copy of ``entry`` at ``path``, or None if its size and digest match, as far as known."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        return f"{size} bytes instead of {entry.bytes}"
    if entry.sha256 or entry.sha256_prefix:
        expected, found = entry.sha256 or entry.sha256_prefix, sha256(path)
        if not found.startswith(expected):
            return f"SHA-256 {found[: len(expected)]} instead of {expected}"
    if entry.md5:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != entry.md5:
            return f"MD5 {found} instead of {entry.md5}"
    return None


def download(entry: Entry, path: Path, progress: Progress | None = None) -> Path:
    """Download ``entry`` to ``path`` unless an intact copy exists; returns the path (for a hub repository, its folder).

    The file is written to ``<name>.part``, resumed there after an interruption, and renamed once size and digest
    match. Raises ``DataError`` if the file has to be downloaded by hand, the network fails or the file is wrong.
    """
    # pooch 1.9.0 is not used: it deletes its temporary file after a failure, so it cannot resume a download.
    if entry.manual:
        raise DataError(f"{entry.name} cannot be downloaded automatically: {entry.manual} ({path})")
    if entry.hub:
        return _download_hub(entry)
    if path.exists() and problem(entry, path) is None:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if not entry.has_digest:
        part.unlink(missing_ok=True)  # a wrongly resumed file could not be detected
    try:
        _transfer(entry.url, part, progress)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{entry.name}: cannot download {entry.url}: {reason}; run the command again with a network, "
            f"or put the file at {path}"
        ) from error
    wrong = problem(entry, part)
    if wrong:
        part.unlink()
        raise DataError(f"{entry.name}: {entry.url} gave a wrong file ({wrong}); it was removed: run the command again")
    os.replace(part, path)
    return path


def _transfer(url: str, part: Path, progress: Progress | None) -> None:
    """Download ``url`` to ``part``, resuming an existing part if the server can."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "captioner"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == 416:  # there is no more to download: the file is complete, or fails its digest
            return
        raise
    with answer, part.open("ab" if answer.status == 206 else "wb") as stream:
        length = answer.headers.get("Content-Length")
        total = stream.tell() + int(length) if length else None
        while block := answer.read(1 << 20):
            stream.write(block)
            if progress:
                progress(stream.tell(), total)
        if total is not None and stream.tell() < total:
            raise ConnectionError(f"the connection ended after {stream.tell()} of {total} bytes")


def _download_hub(entry: Entry) -> Path:
    hub = require("huggingface_hub", extra="transformers")
    try:
        return Path(hub.snapshot_download(entry.hub, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # the hub raises errors of several HTTP libraries
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{entry.name}: cannot download {entry.hub} from the Hugging Face hub: {reason}") from error


def _entry(name: str, fields: Any, path: Path) -> Entry:
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise DataError(f"{path}: {shorten(name)}: expected a mapping of fields to texts")
    size = fields.get("bytes")
    if size is not None and not re.fullmatch(r"\d{1,18}", size, re.ASCII):
        raise DataError(f"{path}: {shorten(name)}: bytes must be a whole number, not {shorten(size)}")
    known = {field.name for field in dataclasses.fields(Entry)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise DataError(
            f"{path}: {name}: unknown field {shorten(unknown[0])}; known fields: {', '.join(sorted(known))}"
        )
    try:
        return Entry(name=name, **(fields if size is None else {**fields, "bytes": int(size)}))
    except TypeError as error:
        raise DataError(f"{path}: {name}: {error}") from error
