from __future__ import annotations

import inspect

import pytest

from captioner.registry import resolve
from captioner.scale.engines import ENGINES
from captioner.scale.job import WORKS


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_is_a_function_of_the_same_arguments(name: str) -> None:
    """Would catch an entry whose module or function has another name."""
    found = list(inspect.signature(resolve(ENGINES, name, "engine")).parameters.values())
    assert [one.name for one in found[:4]] == ["job", "shards", "workers", "report"]
    assert all(one.default is not one.empty for one in found[4:])


@pytest.mark.parametrize("name", WORKS)
def test_every_work_says_its_settings(name: str) -> None:
    """Would catch a work whose options decide nothing, so that two runs are mixed."""
    work = resolve(WORKS, name, "work")
    assert callable(work.settings) and callable(work.__call__)
