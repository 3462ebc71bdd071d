from __future__ import annotations

import shutil
import subprocess

import pytest

from captioner.errors import UsageError
from captioner.scale import patterns
from captioner.scale.patterns import expand_braces

PATTERNS = [
    "data/{000..012}.tar",
    "{8..11}",
    "{08..11}",
    "{3..1}",
    "{-1..1}",
    "{-01..1}",
    "{0..10..5}",
    "{10..0..3}",
    "a{b,c}d{1,2}",
    "a{b,c{1..2}d}e",
    "{a,{b,c}}",
    "{a,}x",
    "x{}y",
    "{a}b",
    "{a}{b,c}",
    "no braces",
    "un{closed",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_braces_are_those_of_bash(pattern: str) -> None:
    """Would catch lost zeros, a wrong order, and braces inside braces."""
    code = r"printf '%s\n' " + pattern.replace(" ", r"\ ")
    wanted = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert expand_braces(pattern) == wanted


def test_a_pattern_of_too_many_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a pattern that fills the memory."""
    monkeypatch.setattr(patterns, "MOST", 100)
    with pytest.raises(UsageError, match="more than 100"):
        expand_braces("{0..999999999}")
