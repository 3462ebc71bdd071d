"""Recognizers side by side: systems of seeds and folds, fusion of streams, and the page."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="needs the extra plots")

from benchmarks.motion import write_problem
from captioner.checkpoint import load_checkpoint
from captioner.data.activity import LabeledVideo
from captioner.data.records import ClassNames
from captioner.errors import DataError, UsageError
from captioner.experiment import parse_experiment
from captioner.features.store import FeatureStore
from captioner.features.writer import FeatureWriter
from captioner.train.trainer import train
from eval import recognition
from eval.page import Table, to_markdown
from eval.recognizers import GRID, Part, Run, System, fuse, p_value, read_run, read_systems
from tests.videos import plain, save_video

CLASSES = ClassNames(("calm", "fight", "run"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two streams of one data set, two seeds and two folds of each, trained for an epoch."""
    root = tmp_path_factory.mktemp("recognition")
    write_problem(root, "direction", 24, 0)
    table = (root / "videos.tsv").read_text().replace("\ttrain", "\t").splitlines()
    rows = [f"{line}\t{number // 4}" for number, line in enumerate(table[1:])]
    (root / "videos.tsv").write_text("\n".join(["video\tlabel\tsplit\tgroup", *rows]) + "\n")
    rgb = FeatureStore(root / "features.h5")
    with FeatureWriter(root / "flow.h5", replace(rgb.spec, flow="dis", flow_quantizer=())) as writer:
        for name in rgb.ids:
            writer.add(name, rgb.get([name])[0] + np.float32(3))
    save_video(root / "0.mp4", [(0, plain("red")), (500, plain("green"))])
    for name, store in (("RGB LRCN", "features.h5"), ("flow LRCN", "flow.h5")):
        for seed in (0, 1):
            for fold in (1, 2):
                run(root, name, store, seed, fold)
    return root


def run(root: Path, name: str, store: str, seed: int, fold: int) -> None:
    values = {
        "task": "activity",
        "name": name,
        "output": str(root / f"{store}-{seed}-{fold}"),
        "model": {"hidden_dim": 8, "input_dropout": 0.0},
        "data": {"format": "tsv", "root": str(root), "features": [str(root / store)], "dev_share": 0.2}
        | {"folds": 2, "split": fold},
        "train": {"epochs": 1, "device": "cpu", "seed": seed, "precision": "float32"},
    }
    train(parse_experiment(values, "test"), progress=False)


def runs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.h5-*"))


def test_seeds_and_folds_are_one_system(folder: Path) -> None:
    """Would catch a fold that counts as a system, a video that is tested twice, and seeds that are pooled."""
    systems = read_systems(runs(folder))
    assert [(one.name, one.stream) for one in systems] == [("RGB LRCN", "RGB"), ("flow LRCN", "flow")]
    for system in systems:
        assert sorted(system.runs) == [(0, 1), (0, 2), (1, 1), (1, 2)]
        assert sorted(video.image_id for video in system.videos.values()) == sorted(f"{i}.mp4" for i in range(24))
        assert system.labels["1: 0.mp4" if "1: 0.mp4" in system.labels else "2: 0.mp4"] == "direction 0"
        assert len(system.scored) == 2
        right = [system.predictions(1)[name] == label for name, label in system.labels.items()]
        assert system.scored[1]["accuracy"].value == pytest.approx(100 * np.mean(right))


def test_predictions_are_the_models(folder: Path) -> None:
    """Would catch features of other videos, and test videos among those of training."""
    checkpoint = load_checkpoint(folder / "features.h5-0-1" / "best.safetensors")
    found = read_run(checkpoint)
    assert found.dev is not None
    store = FeatureStore(folder / "features.h5")
    for number, video in enumerate(found.test.videos[:3]):
        own = checkpoint.model.predict(torch.from_numpy(store.get([video.image_id])))
        np.testing.assert_allclose(found.test.probabilities[number], own[0], atol=1e-6)
    assert not {v.group for v in found.test.videos} & {v.group for v in found.dev.videos}


def part(*rows: list[float], labels: str = "") -> Part:
    videos = [LabeledVideo(f"{i}.mp4", None, label, "test") for i, label in enumerate(labels.split())]
    return Part(videos, np.array(rows), CLASSES)


def system(name: str, stream: str, test: Part, dev: Part | None = None, model: str = "{}") -> System:
    return System(name, stream, model, {(0, 1): Run(test, dev)})


def test_fusion_is_the_weighted_mean_of_probabilities() -> None:
    """Would catch the weights exchanged: with 2/3 the flow decides, with 1/2 it does not here."""
    rgb = part([0.0, 0.8, 0.2], [0.2, 0.2, 0.6], labels="calm run")
    flow = part([0.7, 0.1, 0.2], [0.3, 0.3, 0.4], labels="calm run")
    half, third = fuse([system("a", "RGB", rgb), system("b", "flow", flow)])
    np.testing.assert_allclose(half.runs[0, 1].test.probabilities[0], [0.35, 0.45, 0.2])
    np.testing.assert_allclose(third.runs[0, 1].test.probabilities[0], [1.4 / 3, 1 / 3, 0.2])
    assert (half.predictions(0)["0.mp4"], third.predictions(0)["0.mp4"]) == ("fight", "calm")
    assert half.streams == ("a", "b") and third.name == "a + b, 1/3 RGB, 2/3 flow"


def test_the_weight_is_chosen_on_dev() -> None:
    """Would catch a weight that is chosen on the test videos, where the flow is better here."""
    good, bad = [0.6, 0.2, 0.2], [0.0, 0.0, 1.0]
    rgb = system("a", "RGB", part(bad, labels="calm"), part(good, labels="calm"))
    flow = system("b", "flow", part(good, labels="calm"), part(bad, labels="calm"))
    chosen = fuse([rgb, flow])[-1]
    assert chosen.name.endswith("weight chosen on dev") and chosen.predictions(0) == {"0.mp4": "run"}
    assert chosen.runs[0, 1].note == "0.25", "of equally good weights the one nearest to a half"
    assert 0.5 in GRID


def test_streams_are_fused_with_their_like() -> None:
    """LRCN with LRCN and single frames with single frames; other videos are an error."""
    one = part([1.0, 0, 0], labels="calm")
    many = [system(f"{s} {m}", s, one, model=m) for s in ("RGB", "flow") for m in ("lstm", "none")]
    assert [fused.streams for fused in fuse(many)] == [("RGB lstm", "flow lstm")] * 2 + [("RGB none", "flow none")] * 2
    assert [fused.streams for fused in fuse([many[0], many[3]])] == [("RGB lstm", "flow none")] * 2
    with pytest.raises(DataError, match="must be tested on the same videos"):
        fuse([system("a", "RGB", one), system("b", "flow", part([1.0, 0, 0], labels="run"))])


def test_p_values_are_those_of_exact_tests() -> None:
    """Would catch ties left out, by which three videos would be significant, and seeds that count more."""
    labels = " ".join(["calm"] * 20)
    good, bad = [1.0, 0, 0], [0, 1.0, 0]
    for count, exact in ((0, 1.0), (3, 0.25), (5, 0.0625), (8, 0.0078)):  # two-sided sign tests: 2 / 2 ** count
        one = system("a", "RGB", part(*[good] * 20, labels=labels))
        other = system("b", "RGB", part(*[bad] * count, *[good] * (20 - count), labels=labels))
        assert p_value(one, other) == pytest.approx(exact, abs=0.02)
        for member in (one, other):
            member.runs[1, 1] = member.runs[0, 1]
        assert p_value(one, other) == pytest.approx(exact, abs=0.02)
    with pytest.raises(DataError, match="were tested on different videos"):
        p_value(one, system("c", "RGB", part(good, labels="run")))


def test_pairs_that_differ_are_listed() -> None:
    """Would catch the worse system named first, and a pair of two streams."""
    labels = " ".join(["calm"] * 20)
    good, bad = part(*[[1.0, 0, 0]] * 20, labels=labels), part(*[[0, 1.0, 0]] * 20, labels=labels)
    systems = [system("a", "RGB", bad), system("b", "RGB", good), system("c", "RGB", good), system("d", "flow", bad)]
    blocks = recognition._pairs(systems, recognition._estimates(systems))
    assert [block.rows for block in blocks if isinstance(block, Table)] == [
        [["b", "a", "100.0", "< 0.001"], ["c", "a", "100.0", "< 0.001"]]
    ]
    assert "1 of 3 differences may be accidents" in to_markdown("", blocks)


def test_other_settings_are_not_fused(folder: Path) -> None:
    """Would catch a stream that held clips out fused with one that did not."""
    systems = read_systems(runs(folder))
    assert len({one.settings for one in systems}) == 1 and "dev_share" in systems[0].settings
    assert "features" not in json.loads(systems[0].settings)["data"]


def test_wrong_runs_are_named(folder: Path) -> None:
    first = runs(folder)[0]
    with pytest.raises(UsageError, match="a second run of RGB LRCN with seed 0 and split 1"):
        read_systems([first, first])
    with pytest.raises(UsageError, match="its seeds were trained on different splits"):
        read_systems(runs(folder)[:3])
    with pytest.raises(UsageError, match="was trained for the task captioning"):
        read_systems([Path("default")])


def test_another_store_is_refused(folder: Path) -> None:
    """Would catch features of another network under the name of those of training."""
    store, kept = folder / "flow.h5", (folder / "flow.h5").read_bytes()
    store.unlink()
    spec = FeatureStore(folder / "features.h5").spec
    with FeatureWriter(store, replace(spec, gamma=0.5)) as writer:
        for number in range(24):
            writer.add(f"{number}.mp4", np.zeros(spec.shape, np.float32))
    with pytest.raises(DataError, match="other features than those that the run was trained on"):
        read_run(load_checkpoint(folder / "flow.h5-0-1" / "best.safetensors"))
    store.write_bytes(kept)


def test_tables_and_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a row without an interval, a page without the matrix or the frames, and a missing file as a crash."""
    pytest.importorskip("av")
    monkeypatch.setattr(sys, "argv", ["python -m eval.recognition"])
    arguments = [*map(str, runs(folder)), "-o", str(tmp_path / "page"), "--title", "Like UCF-101"]
    assert recognition.main(arguments) == 0
    text = capsys.readouterr().out
    for line in (
        "RGB LRCN + flow LRCN, 1/3 RGB, 2/3 flow",
        "Weights of the flow, chosen",
        "always direction",
        "## Splits",
    ):
        assert line in text, line
    assert "| LRCN-fc6" in text and "24 test videos of 2 splits, 2 classes; seeds 0, 1" in text
    page = (tmp_path / "page" / "index.html").read_text()
    for piece in ("Confusion matrix", "Best videos", "Worst videos", "<svg"):
        assert piece in page, piece
    assert recognition.main([*arguments, "--examples", "24"]) == 0, "the page may be replaced"
    assert "data:image/jpeg;base64" in (tmp_path / "page" / "index.html").read_text()
    assert recognition.main([*arguments[:-4], "--baseline", "none"]) == 2
    assert "no such system; there are: RGB LRCN, flow LRCN" in capsys.readouterr().err
