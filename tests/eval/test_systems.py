"""eval.systems: which runs are one system, and human captions."""

from __future__ import annotations

import pytest

from captioner.data.records import Captioned
from captioner.errors import DataError
from eval.systems import Run, group, is_human, leave_one_out


def run(name: str, label: str, group: str) -> Run:
    return Run(name, label, {}, "", group)


def test_seeds_are_one_system_and_other_configurations_are_not() -> None:
    """Would catch a mean over different models, and two models that share a row because they share a name."""
    found = group(
        [run("4f", "seed 0", "a"), run("2f", "seed 0", "b"), run("4f", "seed 1", "a"), run("4f", "seed 0", "c")]
    )
    assert {name: [one.label for one in runs] for name, runs in found.items()} == {
        "4f (1)": ["seed 0", "seed 1"],
        "2f": ["seed 0"],
        "4f (2)": ["seed 0"],
    }


def test_human_captions_are_references_of_their_own_image() -> None:
    """Would catch a caption that is a reference of another image, and a reference scored against itself."""
    records = [Captioned("1", None, ("a dog", " a cat "), "test"), Captioned("2", None, ("a cow", "a cow"), "test")]
    human = Run("human", "", {"1": "a cat", "2": "a cow"}, "")
    assert is_human([human], records)
    assert not is_human([Run("model", "", {"1": "a cow", "2": "a cow"}, "")], records)
    assert leave_one_out(records, human.captions) == {"1": ["a dog"], "2": ["a cow"]}
    with pytest.raises(DataError, match="a single reference"):
        leave_one_out([Captioned("1", None, ("a dog",), "test")], {"1": "a dog"})
