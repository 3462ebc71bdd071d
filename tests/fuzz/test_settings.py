"""Configurations, intervals and subtitles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from captioner.cli.intervals import read_intervals
from captioner.experiment import SHIPPED, load_experiment
from captioner.subtitles import srt, webvtt
from tests.fuzz import NASTY, VALUES, attempt, damaged, fuzz

CONFIGS = sorted(SHIPPED.glob("*.yaml"))
NAMES = ["train.lr", "train.epochs", "data.features", "data.root", "name", "output", "model.wiring", "model.hidden_dim"]
TEXT = st.sampled_from([text.decode(errors="replace") for text in NASTY]) | st.text(max_size=10)


@given(data=st.data())
@fuzz
def test_damaged_configurations(tmp_path: Path, data: st.DataObject) -> None:
    """Would catch an exception of the YAML parser's, or of a value that has another type than its field."""
    path = tmp_path / "a.yaml"
    path.write_bytes(data.draw(damaged(data.draw(st.sampled_from(CONFIGS)).read_bytes())))
    attempt(load_experiment, path)


@given(key=st.sampled_from(NAMES) | TEXT, value=TEXT | VALUES.map(str))
@fuzz
def test_any_setting(key: str, value: str) -> None:
    attempt(load_experiment, CONFIGS[0].stem, [f"{key}={value}"])
    attempt(load_experiment, CONFIGS[0].stem, [value])


@given(content=damaged(b"0\t1.5\tcut\n\n1.5\t2\n"), text=TEXT)
@fuzz
def test_damaged_intervals(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "intervals.tsv"
    path.write_bytes(content)
    for given_as in (str(path), text, f"0-1,{text}", f"{text}-{text}"):
        for start, end in attempt(read_intervals, given_as, None) or []:
            assert isinstance(start, float) and isinstance(end, float)


@pytest.mark.parametrize(("write", "comma"), [(srt, ","), (webvtt, ".")])
@given(cues=st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), TEXT), max_size=5))
@fuzz
def test_any_subtitles(write: object, comma: str, cues: list[tuple[float, float, str]]) -> None:
    """Would catch a text that ends its cue, or starts another one, by what it holds."""
    assert callable(write)
    assume(not any("-->" in text for _, _, text in cues))
    text = write(cues)
    clock = rf"\d\d+:[0-5]\d:[0-5]\d\{comma}\d\d\d"
    blocks = [block.split("\n") for block in text.removeprefix("WEBVTT\n\n").split("\n\n") if "-->" in block]
    assert len(blocks) == sum(bool(said.split()) for _, _, said in cues) == text.count("-->")
    for block in blocks:
        assert re.fullmatch(f"{clock} --> {clock}", block[-2] if block[-1] else block[-3])
