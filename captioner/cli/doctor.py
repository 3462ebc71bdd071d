"""``captioner doctor``: what works on this machine, and what to install for the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from captioner.errors import printable

if TYPE_CHECKING:
    from captioner.doctor import Report


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> None:
    """Show versions, devices, caches, and what each command lacks.

    Checks the default model's file, writes nothing and uses no network. The exit status is always 0.
    """
    from captioner.doctor import NEEDS, examine

    report = examine()
    if as_json:
        found = {
            "problems": {extra or "captioner": report.problems(extra) for extra in report.packages},
            "commands": {feature: report.lacking(feature) for feature in NEEDS},
        }
        print(json.dumps(asdict(report) | found, default=str))
        return
    for title, rows in _sections(report).items():
        print(title)
        for name, about in rows:
            print(f"  {name:<32}{printable(about)}".rstrip())


def _sections(report: Report) -> dict[str, Iterable[tuple[str, str]]]:
    """(Name, description) pairs by heading."""
    from captioner.doctor import NEEDS

    known = bool(report.packages)
    fault = report.model_problem
    model = f"damaged: {fault}" if fault else f"intact, {_size(report.model.stat().st_size)}"
    devices = [(one.name, _device(one.about, one.bytes, one.bfloat16)) for one in report.devices]
    if report.devices_problem:
        devices.append(("others", f"unknown: {report.devices_problem}"))
    caches = [
        (one.name, f"{'empty' if one.bytes is None else _size(one.bytes)}  {one.path} (${one.setting} moves it)")
        for one in report.caches
    ]
    extras = [(name, "; ".join(report.problems(name)) or "installed") for name in report.packages if name]
    unknown = [("unknown", "captioner is used without being installed: pip install -e .")]
    lacking = {feature: report.lacking(feature) for feature in NEEDS}
    commands = [(name, _install(extras) if extras else "ready") for name, extras in lacking.items()]
    return {
        "versions": [*report.versions.items(), *(("problem", text) for text in (report.problems("") if known else ()))],
        "default model": [(report.model.name, model)],
        "devices": devices,
        "caches": caches,
        "extras": extras if known else unknown,
        "commands": commands if known else unknown,
    }


def _device(about: str, memory: int | None, bfloat16: bool | None) -> str:
    parts = [about, _size(memory) if memory else ""]
    if bfloat16 is not None:
        parts.append(f"trains in {'bfloat16' if bfloat16 else 'float32 only'}")
    return ", ".join(part for part in parts if part)


def _install(extras: list[str]) -> str:
    java = ", and a Java runtime" if "java" in extras else ""
    return f"needs: pip install 'captioner[{','.join(extras)}]'{java}"


def _size(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"
