"""``captioner crf``: train, predict and score on clips as preprocess.tacos writes them."""

from __future__ import annotations

from dataclasses import replace
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

    mixed = CliRunner().invoke(app, [*predicting, "--gold-share", "0.5"])
    assert mixed.stdout == result.stdout  # the evaluation is of the CRF, before mixing
    mixed_in = read_label_predictions(output)
    known = [clip for clip in read_clips("clips", clips) if clip.labels is not None]
    train, others = ([one.clip_id for one in known if (one.split == "train") == wanted] for wanted in (True, False))
    gold = {clip.clip_id: clip.labels for clip in known}
    assert all(mixed_in.assignment(mixed_in.rows[name]) == gold[name] for name in train)
    assert (mixed_in.subset(others).vector("marginals") == predictions.subset(others).vector("marginals")).all()


def test_a_sentence_has_the_features_and_the_fold_of_its_clip(corpus: Path, tmp_path: Path) -> None:
    """Would catch a sentence with another clip's predictions, or those of a CRF that was trained on its video."""
    clips, features, model = corpus / "clips.jsonl", corpus / "features.h5", tmp_path / "crf.safetensors"
    assert run("crf", "train", "--clips", clips, "-f", features, "-o", model, "--folds", 2, *QUICK)[0] == 0
    known = [clip for clip in read_clips("clips", clips) if clip.labels is not None]
    names = {c.clip_id: [f"{c.clip_id}#{n}" for n in (1, 2)] if c.split == "train" else [c.clip_id] for c in known}
    apart = [replace(clip, clip_id=name) for clip in known for name in names[clip.clip_id]]
    write_clips(tmp_path / "sentences.jsonl", apart)
    predicting = ["crf", "predict", model, "-f", features, "-o", tmp_path / "p.h5", "--clips"]
    assert run(*predicting, tmp_path / "sentences.jsonl")[0] == 0
    sentences = read_label_predictions(tmp_path / "p.h5")
    write_clips(tmp_path / "known.jsonl", known)
    assert run(*predicting, tmp_path / "known.jsonl")[0] == 0
    whole = read_label_predictions(tmp_path / "p.h5")
    write_clips(tmp_path / "single.jsonl", [replace(clip, clip_id=names[clip.clip_id][0]) for clip in known])
    assert run(*predicting, tmp_path / "single.jsonl")[0] == 0  # as many sentences as clips
    assert set(read_label_predictions(tmp_path / "p.h5").ids) == {own[0] for own in names.values()}
    store = FeatureStore(features)
    with FeatureWriter(tmp_path / "odd.h5", store.spec, store.weights_digest) as writer:
        writer.add("cut#1", store.get(store.ids[:1])[0])  # a name of its own, of no other clip
    assert run("crf", "predict", model, "-f", tmp_path / "odd.h5", "-o", tmp_path / "p.h5")[0] == 0
    assert read_label_predictions(tmp_path / "p.h5").ids == ["cut#1"]
    found = sentences.subset([own[-1] for own in names.values()])
    assert (found.vector("marginals") == whole.subset([c.clip_id for c in known]).vector("marginals")).all()


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
    result = CliRunner().invoke(
        app, ["crf", "predict", str(model), "-f", str(features), "-o", "x.h5", "--gold-share", "1"]
    )
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
