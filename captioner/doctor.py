"""The state of captioner on this machine: packages, devices, caches, the default model, and what commands lack."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from captioner import __version__
from captioner.errors import CaptionerError
from captioner.files import cache_folder, sha256, torch_checkpoints
from captioner.hub import hub_cache
from captioner.model_file import read_header, read_weights
from captioner.predictors import MODELS
from captioner.provenance import provenance
from captioner.search.index import default_folder

NEEDS: Mapping[str, tuple[str, ...]] = {
    "caption": (),
    "caption, HEIC images": ("heif",),
    "caption --model CHECKPOINT": ("torch",),
    "caption --model blip, hf:...": ("torch", "transformers"),
    "caption, Parquet, object stores": ("scale",),
    "caption, s3://": ("s3",),
    "caption, --engine ray": ("ray",),
    "alt": (),
    "classify": (),
    "index": (),
    "index, over 200,000 images": ("search",),
    "search": (),
    "serve": ("web",),
    "describe": ("torch",),
    "describe VIDEO": ("torch", "video"),
    "recognize": ("torch", "video"),
    "extract": ("torch",),
    "extract, faster without a GPU": ("torch", "export"),
    "extract --frames": ("torch", "video"),
    "extract --flow": ("torch", "video", "flow"),
    "features": ("torch",),
    "features import, export": ("torch", "scale"),
    "train": ("torch",),
    "train, with curve.png": ("torch", "plots"),
    "export": ("export",),
    "crf": ("torch",),
    "score": ("score",),
    "score --metrics meteor,spice": ("score", "java"),
    "compare": ("score",),
    "data": ("torch",),
    "models": (),
    "status": (),
    "doctor": (),
}
"""The extras that each command needs, and those that some of its options need."""
DEFAULT_SHA256 = "99dbb31f35cd917f9c45ae08698a6197975702d951e492095d65fea400aaa82c"
"""SHA-256 of the shipped model's file: the file's own checksum does not cover its graphs."""
REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)\s*(?:\[(?P<extras>[^]]*)\])?\s*\(?(?:>=(?P<floor>[\d.]+))?[^;]*"
    r"(?:;.*extra == ['\"](?P<extra>[\w-]+)['\"])?"
)
"""A requirement in the metadata of an installed package, such as ``torch>=2.8; extra == "torch"``."""
TOOLS = ("dev", "docs")
"""Extras for developers of captioner; no command needs them."""


@dataclass(frozen=True)
class Package:
    """A package that captioner needs, and its installed version."""

    name: str
    floor: str
    """Oldest version that captioner works with; empty for any."""
    version: str | None
    """None if it is not installed."""

    @property
    def problem(self) -> str | None:
        if self.version is None:
            return f"{self.name} is missing"
        if _release(self.version) < _release(self.floor):
            return f"{self.name} {self.version} is older than {self.floor}"
        return None


@dataclass(frozen=True)
class Device:
    """A device that can compute."""

    name: str
    """The name that ``--device`` takes."""
    about: str
    bytes: int | None
    """Size of the device's own memory."""
    bfloat16: bool | None
    """Whether models can be trained in bfloat16; None if that was not tried."""


@dataclass(frozen=True)
class Cache:
    """A folder where downloads and indexes are kept."""

    name: str
    setting: str
    """Environment variable that sets the folder."""
    path: Path
    bytes: int | None
    """Size of its files in bytes; None if there is no folder."""


@dataclass(frozen=True)
class Report:
    """The results of ``examine``."""

    versions: Mapping[str, str]
    model: Path
    model_problem: str | None
    """What is wrong with the file; None if it is intact."""
    devices: Sequence[Device]
    devices_problem: str | None
    """Why torch's devices are unknown."""
    caches: Sequence[Cache]
    packages: Mapping[str, Sequence[Package]]
    """Packages by extra, captioner's own under an empty name; empty if captioner is used without being installed."""
    java: str | None
    """The path of Java, which METEOR and SPICE need; None if there is none."""
    installed: str = __version__
    """The installed version of captioner; it and its extras are older than a checkout that has been updated since."""

    def problems(self, extra: str) -> list[str]:
        """The packages of an extra (of captioner itself for an empty name) that are missing or too old."""
        if extra not in self.packages:
            return ["the installed captioner does not know this extra"]
        found = [one.problem for one in self.packages[extra] if one.problem]
        if not extra and self.installed != __version__:
            found.append(f"captioner was installed as {self.installed}: give pip install -e . again")
        return [*found, "a Java runtime is missing"] if extra == "java" and self.java is None else found

    def lacking(self, feature: str) -> list[str]:
        """The extras of a command in ``NEEDS`` that are not installed."""
        return [extra for extra in NEEDS[feature] if self.problems(extra)]


def examine() -> Report:
    """Examine this machine. Imports torch if it is installed; writes nothing and uses no network."""
    try:
        requirements = metadata.requires("captioner") or []
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        requirements = []
    devices, problem = find_devices()
    path = MODELS["default"]
    return Report(
        versions=provenance() | {"captioner": __version__, "system": platform.platform(), "executable": sys.executable},
        model=path,
        model_problem=model_problem(path),
        devices=devices,
        devices_problem=problem,
        caches=find_caches(),
        packages=read_packages(requirements) if requirements else {},
        java=shutil.which("java"),
        installed=_version("captioner") or __version__,
    )


def read_packages(requirements: Iterable[str]) -> dict[str, list[Package]]:
    """The packages of each extra, including those of the extras that it names, from a package's requirements."""
    own: dict[str, list[Package]] = {"": []}
    named: dict[str, list[str]] = {}
    for line in requirements:
        found = REQUIREMENT.match(line)
        if found is None:
            continue
        extra = found["extra"] or ""
        own.setdefault(extra, [])
        if found["name"].lower() == "captioner":
            named.setdefault(extra, []).extend(part.strip() for part in (found["extras"] or "").split(","))
        else:
            own[extra].append(Package(found["name"], found["floor"] or "", _version(found["name"])))

    def collect(extra: str, seen: tuple[str, ...] = ()) -> list[Package]:
        inner = [part for part in named.get(extra, ()) if part not in seen]
        return [*own.get(extra, ()), *(one for part in inner for one in collect(part, (*seen, extra)))]

    return {extra: list(dict.fromkeys(collect(extra))) for extra in own if extra not in TOOLS}


def model_problem(path: Path) -> str | None:
    """What is wrong with the default model's file; None if it equals the shipped one byte for byte."""
    try:
        read_weights(read_header(path))
        found = sha256(path)
    except (CaptionerError, OSError) as error:
        return str(error)
    if found == DEFAULT_SHA256:
        return None
    return f"{path}: SHA-256 {found[:8]} instead of {DEFAULT_SHA256[:8]}; install captioner again"


def find_devices() -> tuple[list[Device], str | None]:
    """The devices that torch can use; or the CPU alone, with the reason why torch was not asked."""
    about = platform.processor() or platform.machine()
    try:
        import torch

        from captioner.precision import supports_bfloat16
    except ImportError as error:
        missing = error.name == "torch"
        return [Device("cpu", about, None, None)], "torch is not installed" if missing else f"importing torch: {error}"
    except OSError as error:  # an incompatible library of the driver or of CUDA
        return [Device("cpu", about, None, None)], f"importing torch: {error}"
    found = [Device("cpu", about, None, supports_bfloat16(torch.device("cpu")))]
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(number)
        works = supports_bfloat16(torch.device("cuda", number))
        found.append(Device(f"cuda:{number}", properties.name, properties.total_memory, works))
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple GPU", None, supports_bfloat16(torch.device("mps"))))
    return found, None


def find_caches() -> list[Cache]:
    """The folders where captioner and the libraries that it uses keep files."""
    places = (
        ("captioner", "CAPTIONER_CACHE", cache_folder()),
        ("search index", "CAPTIONER_INDEX", default_folder()),
        ("torch weights", "TORCH_HOME", torch_checkpoints()),
        ("Hugging Face", "HF_HOME", hub_cache()),
    )
    return [Cache(name, setting, path, _size(path)) for name, setting, path in places]


def _size(folder: Path) -> int | None:
    if not folder.is_dir():
        return None
    total = 0
    for place, _, names in os.walk(folder):  # unreadable folders are left out
        for name in names:
            path = os.path.join(place, name)
            if not os.path.islink(path) and os.path.exists(path):
                total += os.path.getsize(path)
    return total


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version such as 2.8.0+cu126, without zeros at the end."""
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version)[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
