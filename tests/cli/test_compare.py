"""captioner compare: intervals, p-values, groups of runs, and what it refuses."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.cli.test_score import run

WORDS = "a the dog man ball runs red on grass with".split()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """References of 40 images and four results files, the first two much better than the others."""
    rng = random.Random(0)
    references = {f"{n}.jpg": [rng.choice(WORDS) for _ in range(8)] for n in range(40)}
    rows = [f"{image}\t{' '.join(words)}\n{image}\t{' '.join(words[1:])}\n" for image, words in references.items()]
    (tmp_path / "refs.tsv").write_text("".join(rows))
    for name, noise in (("good-1", 0.1), ("good-2", 0.1), ("bad-1", 0.6), ("bad-2", 0.6)):
        captions = [
            {"image_id": image, "caption": " ".join(w if rng.random() > noise else rng.choice(WORDS) for w in words)}
            for image, words in references.items()
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(captions))
    return tmp_path


QUICK = ("--resamples", 200, "--trials", 300)


def test_the_first_is_the_baseline(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [data / f"{name}.json" for name in ("good-1", "good-2", "bad-1")]
    assert run(monkeypatch, "compare", *files, "-r", data / "refs.tsv", *QUICK, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["baseline"] == str(files[0])
    assert list(found["systems"]) == [str(path) for path in files]
    alike, bad = (found["systems"][str(path)]["CIDEr-D"] for path in files[1:])
    assert bad["p_bootstrap"] < 0.05 and bad["p_randomization"] < 0.05
    assert alike["p_bootstrap"] > 0.05 and alike["p_randomization"] > 0.05
    assert all(line.endswith("|bs:200|ar:300|seed:12345") for line in found["signatures"])
    assert run(monkeypatch, "compare", *files, "-r", data / "refs.tsv", *QUICK, "--metrics", "rouge") == 0
    header, base, same, worse, *_ = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["score", "system", "value"]
    assert "*" not in base + same and worse.count("*") == 2 and " -" in worse


def test_groups_have_a_spread(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    listed = f"good={data / 'good-1.json'},{data / 'good-2.json'}"
    common = ("-r", data / "refs.tsv", *QUICK, "--metrics", "bleu")
    assert run(monkeypatch, "compare", "--group", listed, "--group", f"bad={data}/bad-*.json", *common) == 0
    out = capsys.readouterr().out
    assert "±" in out and "over a system's runs: good 2, bad 2" in out
    assert out.splitlines()[2].count("*") == 2
    assert run(monkeypatch, "compare", data / "bad-1.json", "--group", listed, *common) == 0
    assert "good 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["good-1.json"], 2, "at least two systems"),
        (["good-1.json", "good-1.json"], 2, "given twice"),
        (["good-1.json", "--group", "x"], 2, "expected NAME=FILE"),
        (["good-1.json", "--group", "x=none.json"], 1, "none.json: cannot be read"),
        (["good-1.json", "--group", "x=none-*.json"], 2, "no file matches none-*.json"),
        (["good-1.json", "bad-1.json", "--metrics", "blue"], 1, "no metric 'blue'"),
        (["good-1.json", "few.json"], 1, "39 of 40 images"),
        (["good-1.json", "few.json", "--missing", "skip"], 2, "captions of different images"),
    ],
)
def test_what_cannot_be_compared(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(data)
    Path("few.json").write_text('[{"image_id": "3.jpg", "caption": "a dog"}]')
    assert run(monkeypatch, "compare", *arguments, "-r", "refs.tsv", *QUICK) == status
    out, err = capsys.readouterr()
    assert out == "" and message in err and "Traceback" not in err
