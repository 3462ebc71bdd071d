"""eval.clip_captioners on made-up captions, and scripts/train_tacos.sh."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.crf.predictions import LabelPredictions, NodePredictions, write_label_predictions
from captioner.data.clips import NODES, Clip, read_clips, write_clips
from captioner.files import PLOT, check_output
from captioner.metrics import References, score_captions
from eval import clip_captioners
from scripts import kitchen_corpus
from tests.conftest import CHECKOUT

SCRIPT = CHECKOUT / "scripts" / "train_tacos.sh"
SENTENCES = ("the person cuts the carrot", "she washes a leek in the sink", "he peels the onion with a knife")
LABELS = (("cut", "-", "carrot", "-", "-"), ("wash", "-", "leek", "-", "sink"), ("peel", "knife", "onion", "-", "-"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three test clips, a CRF that has the last object and the only tool wrong, and two systems, one in two runs."""
    clips = [
        Clip(f"s1_{row}_{row + 1}", "s1", row, row + 1, (text, f"{text} again"), "test", "detailed", LABELS[row])
        for row, text in enumerate(SENTENCES)
    ]
    write_clips(tmp_path / "clips.jsonl", clips)
    believed = [*LABELS[:2], ("peel", "-", "leek", "-", "-")]
    nodes = {}
    for place, node in enumerate(NODES):
        values = tuple(sorted({row[place] for row in (*LABELS, *believed)}))
        best = np.array([values.index(row[place]) for row in believed])
        nodes[node] = NodePredictions(values, np.log(np.full((3, len(values)), 1 / len(values), np.float32)), best)
    write_label_predictions(
        tmp_path / "label-predictions.h5", LabelPredictions([clip.clip_id for clip in clips], nodes, "synthetic:snr=1")
    )
    said = {
        "b-map-synthetic-seed0": SENTENCES,
        "b-map-synthetic-seed1": (*SENTENCES[:2], "he cuts the onion with a fork"),
        "smt-map-synthetic": ("the person cuts the carrot",) * 3,
    }
    (tmp_path / "results").mkdir()
    for name, sentences in said.items():
        entries = [{"image_id": clip.clip_id, "caption": text} for clip, text in zip(clips, sentences, strict=True)]
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(entries))
    return tmp_path


def test_seeds_are_one_system_and_scores_are_the_scorers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch runs that are not averaged, references that get lost, and NULLs that count as stated labels."""
    table = folder / "scores.csv"
    arguments = [str(folder), "--clips", str(folder / "clips.jsonl"), "--csv", str(table)]
    assert clip_captioners.main(arguments) == 0
    rows = {row["system"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert list(rows) == ["smt-map", "b-map"]
    assert float(rows["b-map"]["labels right"]) == pytest.approx(100 * 13 / 15, abs=0.1)
    assert float(rows["b-map"]["not NULL"]) == pytest.approx(100 * 6 / 8, abs=0.1)
    clips = {clip.clip_id: list(clip.sentences) for clip in read_clips("clips", folder / "clips.jsonl")}
    scores = []
    for seed in (0, 1):
        entries = json.loads((folder / "results" / f"b-map-synthetic-seed{seed}.json").read_text())
        captions = {entry["image_id"]: entry["caption"] for entry in entries}
        scores.append(score_captions(captions, clips, ["bleu"])["BLEU-4"].value)
    assert rows["b-map"]["runs"] == "2"
    assert float(rows["b-map"]["BLEU-4"]) == pytest.approx(np.mean(scores), abs=0.01)
    assert float(rows["b-map"]["deviation"]) == pytest.approx(np.std(scores, ddof=1), abs=0.01)
    out = " ".join(capsys.readouterr().out.split())
    assert "synthetic:snr=1" in out and "| (b) decoder, CRF max | SMT, CRF max | +" in out
    assert "| p | p (Holm) |" in out


def test_one_reference_is_the_first_sentence(folder: Path) -> None:
    """Would catch a single-reference score over all sentences of a clip: these captions are second sentences."""
    entries = json.loads((folder / "results" / "b-map-synthetic-seed0.json").read_text())
    for entry in entries:
        entry["caption"] += " again"
    (folder / "results" / "c-marginals-synthetic-seed0.json").write_text(json.dumps(entries))
    table = folder / "scores.csv"
    assert clip_captioners.main([str(folder), "--clips", str(folder / "clips.jsonl"), "--csv", str(table)]) == 0
    [row] = [row for row in csv.DictReader(table.read_text().splitlines()) if row["system"] == "c-marginals"]
    assert float(row["BLEU-4"]) == pytest.approx(100) and float(row["one reference"]) < 90


def test_tables_and_plots_never_replace_something_else(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch the clips replaced by scores, and a photo by a plot."""
    photo = tmp_path / "photo.png"
    Image.new("RGB", (2, 2)).save(photo)
    clips = folder / "clips.jsonl"
    for option, path in (("--csv", clips), ("--csv", photo), ("--plot", photo), ("--plot", clips)):
        before = path.read_bytes()
        assert clip_captioners.main([str(folder), "--clips", str(clips), option, str(path)]) == 2
        assert f"{option} {path}" in capsys.readouterr().err and path.read_bytes() == before
    both = ["--csv", str(tmp_path / "new"), "--plot", str(tmp_path / "new")]
    assert clip_captioners.main([str(folder), "--clips", str(clips), *both]) == 2
    for option in ("--csv", "--plot"):
        path = folder / "label-predictions.h5"
        assert clip_captioners.main([str(folder), "--clips", str(clips), option, str(path)]) == 2
    check_output("--plot", CHECKOUT / "docs" / "tacos-sweep.png", PLOT)


def test_the_plot_has_a_point_for_each_recognizer(folder: Path, tmp_path: Path) -> None:
    """Would catch a plot that cannot be drawn, or points that are not in order of accuracy."""
    pytest.importorskip("matplotlib")
    plot = tmp_path / "plot.png"
    arguments = [str(folder), str(folder), "--clips", str(folder / "clips.jsonl"), "--plot", str(plot)]
    for _ in range(2):  # its own plot may be replaced
        assert clip_captioners.main(arguments) == 0
    assert plot.read_bytes().startswith(b"\x89PNG") and plot.stat().st_size < 150_000
    assert clip_captioners.main([*arguments, "--split", "val"]) == 1  # no clip


def test_points_go_from_the_worst_recognizer_to_the_best(folder: Path) -> None:
    """Would catch lines that run back and forth, a missing spread not drawn as none, and untuned SMT in the plot."""
    clips = read_clips("clips", folder / "clips.jsonl")
    texts = References({clip.clip_id: clip.sentences for clip in clips})
    judged = clip_captioners.evaluate_folder(folder, clips, texts, texts)
    series = clip_captioners.points([replace(judged, non_null_accuracy=accuracy) for accuracy in (70.0, 30.0)])
    assert [x for x, _, _ in series["SMT, CRF max"]] == [30, 70]
    assert {deviation for _, _, deviation in series["SMT, CRF max"]} == {0.0}
    untuned = replace(judged, systems={"smt-untuned-map": judged.systems["smt-map"], **judged.systems})
    assert list(clip_captioners.points([untuned])) == list(series), "a control beside the systems"


def test_a_folder_without_captions_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (folder / "results").iterdir():
        path.unlink()
    assert clip_captioners.main([str(folder), "--clips", str(folder / "clips.jsonl")]) == 1
    assert "train_tacos.sh" in capsys.readouterr().err


def test_the_made_up_corpus_reads_as_tacos(tmp_path: Path) -> None:
    """Would catch lines that the reader of TACoS does not take, and a corpus that differs from run to run."""
    assert kitchen_corpus.main([str(tmp_path)]) == 0
    clips = read_clips("tacos", tmp_path)
    assert {clip.split for clip in clips} == {"train", "val", "test"}
    assert all(len(clip.sentences) == kitchen_corpus.SENTENCES for clip in clips)
    before = (tmp_path / "kitchen_test.txt").read_text()
    assert kitchen_corpus.main([str(tmp_path)]) == 0
    assert (tmp_path / "kitchen_test.txt").read_text() == before


def run_script(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script with this Python as ``python`` and ``captioner``."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name, words in (("python", ""), ("captioner", " -m captioner")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n')
        (programs / name).chmod(0o755)
    variables = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OUT": str(tmp_path / "out"), **environment}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], cwd=SCRIPT.parents[1], env=variables, capture_output=True, text=True
    )


def test_the_script_says_where_the_corpus_comes_from(tmp_path: Path) -> None:
    """Would catch a script that goes on without data, or does not parse."""
    done = run_script(tmp_path, DATA=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "DATA=folder" in done.stderr and "Regneri" in done.stderr


@pytest.mark.slow
def test_the_demo_runs_whole_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """Would catch any step that does not fit the next, an output that hides the simulation, and work done twice."""
    pytest.importorskip("spacy")
    settings = ("--demo", "train.epochs=2", "train.evaluate_every=1")
    done = run_script(tmp_path, *settings, SNRS="0.4")
    assert done.returncode == 0, done.stderr
    assert "synthetic:snr=0.4" in done.stdout and "(c) decoder, CRF prob" in done.stdout
    results = sorted((tmp_path / "out" / "synthetic-snr0.4" / "results").iterdir())
    assert len(results) == 10 and all("synthetic" in path.name for path in results)
    page = (tmp_path / "out" / "synthetic-snr0.4" / "report" / "index.html").read_text()
    assert "synthetic features" in page and "SMT (Rohrbach et al. 2013)" in page
    times = {path: path.stat().st_mtime_ns for path in results}
    times[results[0]] = 0
    results[0].unlink()  # (a)'s captions: its training is done, and only they are made again
    again = run_script(tmp_path, *settings, SNRS="0.4")
    assert again.returncode == 0 and again.stdout.endswith(done.stdout[done.stdout.index("# BLEU-4") :])
    assert all(path.stat().st_mtime_ns == times[path] for path in results[1:]) and results[0].exists()
