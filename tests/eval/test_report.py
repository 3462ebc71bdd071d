"""eval.report: from runs and files of captions to one table and one page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from captioner.data import read_dataset
from captioner.data.records import of_split
from captioner.metrics import score_captions
from captioner.predictors.features import FeatureCaptioner
from captioner.train.trainer import train
from eval import baselines
from eval.report import main
from tests.eval.html_reader import Reader
from tests.toy import experiment, make_data


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data, a run, and files of people and of baselines on val."""
    data = make_data(tmp_path_factory.mktemp("toy"))
    train(experiment(data, data / "run", train__epochs=1), progress=False)
    shared = ["--data", str(data), "--format", "own", "--split", "val"]
    assert baselines.main(["human", *shared, "-o", str(data / "human.json")]) == 0
    assert baselines.main(["typical", *shared, "-o", str(data / "typical.json")]) == 0
    for seed in "01":
        drawn = ["ngram", "--min-count", "1", "--sample", seed, "-o", str(data / f"drawn-seed{seed}.json")]
        assert baselines.main([*drawn, *shared]) == 0
    return data


def given(toy: Path, *names: str) -> list[str]:
    return [*(str(toy / name) for name in names), "--split", "val", "--format", "own", "--root", str(toy)]


def test_the_whole_page_from_runs_and_files(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a section that is missing, an asset that is not in the page, and captions found twice."""
    output = tmp_path / "report"
    runs = ["typical.json", "run", "drawn-seed0.json", "drawn-seed1.json", "human-caption1.json", "human-caption2.json"]
    arguments = [*given(toy, *runs), "-o", str(output), "--images", "--published", "flickr8k", "--examples", "2"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    page = (output / "index.html").read_text()
    read = Reader(page)
    tags = [tag for tag, _ in read.seen]
    assert "script" not in tags and "link" not in tags
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for tag, attributes in read.seen if tag == "img")
    assert tags.count("img") == 6 and tags.count("svg") == 3 and tags.count("h1") == 1
    assert not re.search(r"url\((?!#)|@import", page)
    for heading in ("Scores", "Beside people", "BLEU-4 by length", "Learning curves", "Published", "Signatures"):
        assert heading in read.text
    assert "seeds 0, 1" in read.text and "Hard attention" in read.text and "captioner caption --model" in read.text
    assert (output / "report.md").read_text().startswith("# own val\n") and "| toy" in printed
    assert {path.name for path in output.glob("*.svg")} == {"scores.svg", "lengths.svg", "curves.svg"}

    monkeypatch.setattr(FeatureCaptioner, "caption_features", lambda *_, **__: pytest.fail("captioned again"))
    assert main(arguments) == 0
    assert (output / "index.html").read_text() == page
    with pytest.raises(pytest.fail.Exception):  # other captions are wanted, so the kept ones must not be taken
        main([*arguments, "--no-repeat-ngram-size", "2"])


def test_a_page_never_replaces_another(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a report written into the folder of somebody's web site."""
    (tmp_path / "index.html").write_text("<!DOCTYPE html><title>mine</title>")
    assert main([*given(toy, "typical.json"), "-o", str(tmp_path)]) == 2
    assert "index.html exists and is not a page of this program" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    for name, message in (("report.md", "not a report in Markdown"), ("lengths.svg", "not a figure of a report")):
        own = tmp_path / "of" / name / name
        own.parent.mkdir(parents=True)
        own.write_text("my own words")
        assert main([*given(toy, "typical.json"), "-o", str(own.parent)]) == 2
        assert f"{name} exists and is {message}" in capsys.readouterr().err
        assert own.read_text() == "my own words" and len(list(own.parent.glob("*.*"))) == 1


def test_the_table_has_the_metrics_own_numbers(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a row under another system's name, and a fraction for a percentage."""
    assert main(given(toy, "typical.json", "run")) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| typical "))
    records = of_split(read_dataset("own", toy), "val")
    captions = {entry["image_id"]: entry["caption"] for entry in json.loads((toy / "typical.json").read_text())}
    scored = score_captions(captions, {record.image_id: record.captions for record in records})
    for name, cell in zip(("BLEU-1", "BLEU-4", "CIDEr-D"), [row.split("|")[n] for n in (2, 5, 6)], strict=True):
        assert cell.split()[0] == f"{scored[name].value:.1f}"


def test_people_are_never_scored_against_themselves(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch people with 100 BLEU, and systems beside them on more references than they have."""
    assert main(given(toy, "typical.json", "human-caption1.json", "human-caption2.json")) == 0
    printed = capsys.readouterr().out
    above, below = printed.split("## Beside people")
    assert "human" not in above and "| human " in below
    assert "refs:1|" in below and "turns:2" in below and "100.0 [100.0" not in printed
    for number, name in enumerate(("ann.json", "bob.json"), start=1):  # two people whose files are named otherwise
        (toy / name).write_bytes((toy / f"human-caption{number}.json").read_bytes())
    capsys.readouterr()
    assert main(given(toy, "typical.json", "ann.json", "bob.json")) == 0
    assert "| people " in capsys.readouterr().out
    assert main(given(toy, "human-caption1.json")) == 1


def test_a_model_that_says_what_people_say_word_for_word_is_taken_for_people_only_if_always(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch a good system that vanishes from the table because some of its captions are references."""
    entries = json.loads((toy / "human-caption1.json").read_text())
    entries[0]["caption"] = "something else"
    (tmp_path / "model.json").write_text(json.dumps(entries))
    assert main(given(toy, str(tmp_path / "model.json"), "typical.json")) == 0
    assert "| model " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["typical.json", "typical.json"], "give each run once"),
        (["typical.json", "--baseline", "x"], "no such system; there are: typical"),
        (["typical.json", "--image-folder", "/nonexistent"], "has none of the images"),
        (["none.json"], "none.json"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], message: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [name for name in arguments if name.endswith(".json")]
    options = arguments[len(files) :]
    assert main([*given(toy, *files), *options, "-o", str(tmp_path)]) in (1, 2)
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(error) == 1 and message in error[0]


def test_a_data_set_is_needed(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(toy / "typical.json")]) == 2
    assert "--root and --format" in capsys.readouterr().err
