"""The lower bounds of the dependencies and the pins that ``make test-oldest`` tests them with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PINS = CHECKOUT / "tests" / "constraints-oldest.txt"


def declared_floors() -> dict[str, str]:
    """The name and the lower bound of each requirement in pyproject.toml; captioner's own extras are left out.

    So are the tools of the extra ``docs``, which are not run with their oldest releases.
    """
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != "docs"}
    groups = [settings["build-system"]["requires"], project["dependencies"], *extras.values()]
    floors: dict[str, str] = {}
    for requirement in (line for group in groups for line in group):
        if requirement.startswith("captioner["):
            continue
        found = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)(?:,[^;]*)?(?:\s*;.*)?", requirement)
        assert found, f"{requirement!r} has no lower bound of the form name>=version"
        name, floor = found[1].lower(), found[2]
        assert floors.setdefault(name, floor) == floor, f"{name} has two lower bounds"
    return floors


def pinned() -> dict[str, str]:
    """The name and the version of each line of the constraints file."""
    ours = [line for line in PINS.read_text(encoding="utf-8").splitlines() if not line.endswith("# not ours")]
    lines = [line.partition("#")[0].strip() for line in ours]
    pins = [line.split("==") for line in lines if line]
    assert all(len(pin) == 2 for pin in pins), "a line is not of the form name==version"
    assert len({name for name, _ in pins}) == len(pins), "a name is pinned twice"
    return {name: version for name, version in pins}


def test_every_lower_bound_is_the_release_that_is_tested() -> None:
    """Would catch a bound without a pin, a pin of what is no longer needed, and a bound that was never tried."""
    assert declared_floors() == pinned()
