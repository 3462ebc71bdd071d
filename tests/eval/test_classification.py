"""eval.classification: runs to a table and a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captioner.experiment import load_experiment
from captioner.train.trainer import train
from eval.classification import main
from tests.eval.html_reader import Reader
from tests.labeled import write_mnist

SETTINGS = ("train.device=cpu", "train.batch_size=16", "data.val=20")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a system that learned, and one of a system that did not."""
    folder = tmp_path_factory.mktemp("runs")
    write_mnist(folder / "data", train=220, test=50)
    for name, epochs, rate, seeds in (("learned", 5, 0.01, (0, 1)), ("not", 1, 0.0, (0,))):
        for seed in seeds:
            own = [f"train.seed={seed}", f"train.epochs={epochs}", f"train.lr={rate}", f"name={name}"]
            place = [f"data.root={folder / 'data'}", f"output={folder / f'{name}-{seed}'}"]
            train(load_experiment("mnist-lenet", [*SETTINGS, *own, *place]), progress=False)
    return folder


def cells(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_seeds_are_one_system_and_the_better_one_is_found_better(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch seeds that are told apart, accuracies of other images, and p-values of the wrong pair."""
    chosen = [str(runs / name) for name in ("not-0", "learned-0", "learned-1")]
    assert main(chosen) == 0
    found = cells(capsys.readouterr().out)
    assert found["learned"][:3] == ["2", "431,080", "5"] and found["not"][0] == "1"
    accuracies = {name: float(found[name][3].split()[0]) for name in ("learned", "not")}
    assert accuracies["learned"] > 90 > 40 > accuracies["not"]
    gap, test = re.split(" (?=p)", found["learned"][4])
    assert float(gap) == pytest.approx(accuracies["learned"] - accuracies["not"], abs=0.011) and "p < 0.001" in test


def test_single_runs_have_exact_intervals_and_tests(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a bootstrap interval of [100, 100] where a single run has everything right."""
    assert main([str(runs / name) for name in ("learned-0", "not-0")]) == 0
    found = cells(capsys.readouterr().out)
    if found["learned"][3].startswith("100.00"):
        assert found["learned"][3] == "100.00 [92.87, 100.00]"  # Wilson, 50 of 50
    assert "p < 0.001" in found["not"][4] and found["not"][4].startswith("−")


def test_the_page_shows_errors_and_kernels(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a gallery of right answers, and predictions that are made again for a second page."""
    arguments = [str(runs / "not-0"), "-o", str(tmp_path), "--errors", "3"]
    assert main(arguments) == 0
    first = capsys.readouterr()
    page = (tmp_path / "index.html").read_text()
    seen = [tag for tag, _ in Reader(page).seen]
    assert seen.count("img") == 4 and "shape" in page and "20 x 1 x 5 x 5" in page
    labels = re.findall(r"<b>(\d), [\d.]+ %</b><dl><dt>true class</dt><dd>(\d)</dd>", re.sub(r"\n\s*", "", page))
    assert len(labels) == 3 and all(predicted != true for predicted, true in labels)
    monkeypatch.setattr("eval.classification.classify", None)
    assert main(arguments) == 0
    second = capsys.readouterr()
    assert second.out == first.out and "classifying" in first.err and "classifying" not in second.err


def test_dev_images_are_those_that_were_held_out(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch an evaluation on training images: dev must score what the log says."""
    assert main([str(runs / "learned-0"), "--split", "val"]) == 0
    output = capsys.readouterr().out
    assert "of 20 images" in output
    log = (runs / "learned-0" / "log.jsonl").read_text()
    best = max(float(value) for value in re.findall(r'"accuracy": ([\d.]+)', log))
    assert float(cells(output)["learned"][3].split()[0]) == pytest.approx(best)


def test_what_does_not_fit_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a table whose rows are of different images, and a baseline that is ignored."""
    assert main([str(runs / "not-0"), "--baseline", "none"]) == 2
    assert "no such system; there are: not" in capsys.readouterr().err
    write_mnist(tmp_path / "data")
    assert main([str(runs / "not-0"), "--root", str(tmp_path)]) == 1
    assert "no MNIST in IDX files here" in capsys.readouterr().err
