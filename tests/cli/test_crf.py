"""``captioner crf``: train, predict and score on clips as preprocess.tacos writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from captioner.backbones.spec import BackboneSpec
from captioner.cli.app import app
from captioner.crf.model import load_crf
from captioner.crf.predictions import read_label_predictions
from captioner.data.clips import NODES, NULL, OTHER, read_clips, write_clips
from captioner.errors import FeatureStoreError, UsageError
from captioner.features.store import FeatureStore
from captioner.features.writer import FeatureWriter
from preprocess.synthetic_features import main as synthetic_features
from tests.conftest import CHECKOUT
from tests.kitchen import write_corpus

QUICK = ("--epochs", 4, "--batch-size", 16, "--lr", 0.05)


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and stdout."""
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    clips = write_corpus(folder)
    assert synthetic_features([str(clips), "-o", str(folder / "features.h5"), "--snr", "0.2"]) == 0
    return folder


def test_train_predict_score(corpus: Path, tmp_path: Path) -> None:
    """Would catch labels, clips or videos that lose their order between the clips file and the predictions."""
    clips, features, model = corpus / "clips.jsonl", corpus / "features.h5", tmp_path / "crf.safetensors"
    status, text = run("crf", "train", "--clips", clips, "-f", features, "-o", model, "--chain", "--folds", 2, *QUICK)
    assert status == 0 and text.startswith("dev  activity ") and "loopy belief propagation" in text
    file = load_crf(model)
    assert list(file.model.labels) == list(NODES) and file.model.labels["object"] == (NULL, OTHER, "carrot", "egg")
    assert len(file.folds) == 2 and file.training["clips"] == 63 and file.training["dev"]["clips"] == 16

    output = tmp_path / "predictions.h5"
    predicting = ["crf", "predict", str(model), "-f", str(features), "--clips", str(clips), "-o", str(output)]
    result = CliRunner().invoke(app, predicting)
    assert "1 clips" in str(result.exception)  # the one without labels has no synthetic feature
    predictions = read_label_predictions(output)
    assert len(predictions) == 95 and "synthetic:snr=0.2" in predictions.source
    status, text = run("crf", "score", output, "--clips", clips)
    assert (
        status == 0
        and text == result.stdout
        and [line.split()[:2] for line in text.splitlines()]
        == [
            ["train", "63"],
            ["val", "16"],
            ["test", "16"],
        ]
    )
    row = predictions.rows["s20_20_29"]
    assert predictions.assignment(row)[2] == "carrot" and "carrot" in predictions.words(row)


@pytest.mark.parametrize("chain", [False, True])
def test_observations_are_predicted_by_the_fold_of_their_clip(corpus: Path, tmp_path: Path, chain: bool) -> None:
    """Would catch observations predicted by a CRF that knows their video, or as further clips of one chain."""
    clips, model = corpus / "clips.jsonl", tmp_path / "crf.safetensors"
    assert synthetic_features([str(clips), "-o", str(tmp_path / "f.h5"), "--snr", "0.2", "--draws", "2"]) == 0
    training = ["--clips", clips, "-f", tmp_path / "f.h5", "--folds", 2, "--graph", "none", *["--chain"] * chain]
    assert run("crf", "train", "-o", model, *training, *QUICK)[0] == 0
    known = [clip for clip in read_clips("clips", clips) if clip.labels is not None]
    write_clips(tmp_path / "known.jsonl", known)
    predicting = ["crf", "predict", model, "-o", tmp_path / "p.h5", "--clips", tmp_path / "known.jsonl", "-f"]
    status, text = run(*predicting, tmp_path / "f.h5")
    found = read_label_predictions(tmp_path / "p.h5")
    assert status == 0 and text.startswith("train 63 clips"), "observations are not counted as clips"
    assert run(*predicting, corpus / "features.h5")[1] == text
    train = [clip.clip_id for clip in known if clip.split == "train"]
    assert len(found) == 95 + 63
    store = FeatureStore(tmp_path / "f.h5")
    with FeatureWriter(tmp_path / "swapped.h5", store.spec, store.weights_digest, "float32") as writer:
        for name in [clip.clip_id for clip in known]:  # the second observations as the only ones
            writer.add(name, store.get([f"{name}~2" if name in train else name])[0])
    assert run(*predicting, tmp_path / "swapped.h5")[0] == 0
    alone = read_label_predictions(tmp_path / "p.h5").subset(train).vector("marginals")
    second = found.subset([f"{name}~2" for name in train]).vector("marginals")
    assert np.allclose(alone, second, atol=1e-5)
    assert not np.allclose(second, found.subset(train).vector("marginals"), atol=0.1)


def test_what_the_command_refuses(corpus: Path, tmp_path: Path) -> None:
    """Features of another kind, or a chain without an order, would give predictions that mean nothing."""
    clips, features, model = corpus / "clips.jsonl", corpus / "features.h5", tmp_path / "crf.safetensors"
    assert run("crf", "train", "--clips", clips, "-f", features, "-o", model, "--graph", "none", *QUICK)[0] == 0
    status, _ = run("crf", "predict", model, "-f", features, "-o", tmp_path / "p.h5")
    assert status == 0 and len(read_label_predictions(tmp_path / "p.h5")) == 95
    assert synthetic_features([str(clips), "-o", str(tmp_path / "other.h5"), "--snr", "0.3"]) == 0
    for arguments, error, match in (
        (("-f", tmp_path / "other.h5"), FeatureStoreError, "synthetic:snr=0.3"),
        (("-f", features, "-f", features), FeatureStoreError, "2 feature stores"),
    ):
        result = CliRunner().invoke(app, ["crf", "predict", str(model), *map(str, arguments), "-o", "x.h5"])
        assert isinstance(result.exception, error) and match in str(result.exception)
    chained = ["crf", "train", "--clips", clips, "-f", features, "-o", model, "--graph", "none", "--chain", *QUICK]
    assert run(*chained)[0] == 0
    result = CliRunner().invoke(app, ["crf", "predict", str(model), "-f", str(features), "-o", "x.h5"])
    assert isinstance(result.exception, UsageError) and "give --clips" in str(result.exception)


def test_outputs_never_replace_something_else(corpus: Path, tmp_path: Path) -> None:
    """Would catch predictions written over the features that they were made from, and a CRF over a captioner."""
    clips, features = corpus / "clips.jsonl", corpus / "features.h5"
    model, other = CHECKOUT / "tests/fixtures/crf-v2.safetensors", tmp_path / "other"
    train, predict = ["train", "--clips", clips, "-f", features], ["predict", model, "-f", features]
    for arguments, output, words in (
        (train, clips, "is the same file as"),
        (train, CHECKOUT / "tests/fixtures/checkpoint-v2.safetensors", "is not a CRF file"),
        (predict, features, "is the same file as"),
        (predict, CHECKOUT / "tests/fixtures/features-v2.h5", "is not a file of label predictions"),
    ):
        other.write_bytes(output.read_bytes())
        for path in (output, other):
            expected = words if path == output else "exists and is not"
            result = CliRunner().invoke(app, ["crf", *map(str, arguments), "-o", str(path)])
            assert isinstance(result.exception, UsageError) and expected in str(result.exception)
        assert other.read_bytes() == output.read_bytes()


def test_several_stores_are_joined(corpus: Path, tmp_path: Path) -> None:
    """Would catch a second store that is ignored: here it alone tells something."""
    store = FeatureStore(corpus / "features.h5")
    spec = BackboneSpec("nothing", size=1, dimension=2)
    with FeatureWriter(tmp_path / "nothing.h5", spec, "zeros") as writer:
        for name in store.ids:
            writer.add(name, np.zeros(2, np.float32))
    model = tmp_path / "crf.safetensors"
    stores = ("-f", tmp_path / "nothing.h5", "-f", corpus / "features.h5")
    status, _ = run("crf", "train", "--clips", corpus / "clips.jsonl", *stores, "-o", model, "--graph", "tree", *QUICK)
    assert status == 0
    file = load_crf(model)
    assert [source.key for source in file.features] == ["nothing", "synthetic:snr=0.2"]
    assert file.training["dev"]["accuracy"]["object"] > 0.6
