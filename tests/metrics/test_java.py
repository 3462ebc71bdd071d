"""METEOR and SPICE, which are Java programs."""

from __future__ import annotations

import json

import pytest

from captioner.errors import MissingDependency
from captioner.java import find_jar, run_java
from captioner.metrics.java import Meteor, Spice
from tests.metrics.corpora import corpus, count, values


@pytest.mark.slow  # the program takes ten seconds to start
@pytest.mark.java
def test_meteor_is_the_program_s_own():
    """The scores of single captions and of all, as the program computes them from the counts that it gave."""
    try:
        jar = find_jar("METEOR", "meteor/meteor-1.5.jar")
    except MissingDependency as error:
        pytest.skip(str(error))
    odd = [
        ("the dogs ran", "a dog is running"),
        ("a dog", "a dog"),
        ("café ||| dog", "café"),
        ("", "a"),
        ("zebra", "a"),
    ]
    pairs = [*corpus(6, seed=1), *((one.split(), [other.split()]) for one, other in odd)]
    whole, each = values(Meteor(), pairs)
    options = ["-", "-", "-stdio", "-l", "en", "-norm"]
    asked = [
        " ||| ".join(["SCORE", *(" ".join(t).replace("|||", "") for t in [*refs, hyp])]) + "\n" for hyp, refs in pairs
    ]
    counts = run_java("METEOR", jar, options, "1G", "".join(asked)).splitlines()
    theirs = run_java("METEOR", jar, options, "1G", " ||| ".join(["EVAL", *counts]) + "\n").split()
    assert [*each["METEOR"], whole["METEOR"]] == pytest.approx([100 * float(score) for score in theirs], abs=1e-9)


def fake_java(folder, monkeypatch, program):
    """A ``java`` first on the path, and a package that holds both jars and SPICE's models."""
    package = folder / "pycocoevalcap"
    for name in (
        "meteor/meteor-1.5.jar",
        "spice/spice-1.0.jar",
        "spice/lib/stanford-corenlp-3.6.0-models.jar",
        "__init__.py",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    monkeypatch.syspath_prepend(str(folder))
    (folder / "java").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_spice_is_read_by_image(tmp_path, monkeypatch):
    """Its answers come in any order, and are not a number where there is nothing to compare. The program is played by
    a script: the real one needs models that cannot be had here."""
    answer = [{"image_id": n, "scores": {"All": {"f": f}}} for n, f in ((2, 0.25), (0, "NaN"), (1, 0.75))]
    fake_java(tmp_path, monkeypatch, f"[ $3 = -jar ] && echo '{json.dumps(answer)}' > $7")
    rows = Spice().statistics(count(corpus(3)))
    assert rows.tolist() == [[0, 0], [0.75, 1], [0.25, 1]]
    assert Spice().aggregate(rows.sum(0))["SPICE"] == pytest.approx(50)
    assert Spice().aggregate(rows)["SPICE"].tolist() == [0, 75, 25]


@pytest.mark.parametrize("metric", [Meteor, Spice])
def test_a_java_program_that_breaks_is_one_line(tmp_path, monkeypatch, metric):
    fake_java(tmp_path, monkeypatch, "echo 'Exception in thread main' >&2; echo at nowhere >&2; exit 1")
    with pytest.raises(MissingDependency, match="cannot run here: Exception in thread main$"):
        metric().statistics(count(corpus(3)))
