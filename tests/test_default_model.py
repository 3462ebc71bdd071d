"""The model that ships: small enough, complete, and better on real photographs than saying the same of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner import load
from captioner.backbones.efficientnet_lite import spec_of
from captioner.backbones.imagenet import imagenet_classes
from captioner.data import read_dataset
from captioner.metrics import score_captions
from captioner.predictors import MODELS
from captioner.predictors.classifier import OnnxNetwork, load_classifier
from captioner.predictors.onnx_runtime import OnnxRuntime
from tests.backbones.test_efficientnet_lite import CLASSES, EXAMPLES
from tests.conftest import CHECKOUT

CONSTANT = "a man in a blue shirt is standing in the street"


def test_the_file_is_small_and_complete() -> None:
    """Would catch a checkpoint that needs a download, or a CNN whose preparation changed after it was packed."""
    assert MODELS["default"].stat().st_size <= 16e6
    captioner = load()
    assert isinstance(captioner.runtime, OnnxRuntime)
    checkpoint = load(runtime="torch").checkpoint
    assert [spec.key for spec in checkpoint.inputs] == ["efficientnet-lite:2"]
    assert checkpoint.inputs[0].digest == spec_of("2").digest
    assert checkpoint.backbone_states[0] is not None
    assert checkpoint.provenance["torch"]


def test_the_example_photographs_get_the_captions_on_record() -> None:
    """Would catch anything that changes what people read: preparation, weights, vocabulary, search."""
    lines = (CHECKOUT / "examples" / "captions.tsv").read_text().splitlines()
    record = dict(line.split("\t") for line in lines)
    assert set(record) == {f"examples/{path.name}" for path in (CHECKOUT / "examples").glob("*.jpg")}
    assert dict(zip(record, load().caption([CHECKOUT / path for path in record]), strict=True)) == record


def test_the_example_photographs_are_of_the_classes_that_they_show() -> None:
    """Would catch a model that was packed without its CNN's layer of classes, or with that of other features."""
    classifier = load_classifier()
    assert isinstance(classifier.network, OnnxNetwork)
    for name, number in CLASSES.items():
        found = [score.name for score in classifier.classify(EXAMPLES / name, top=3)]
        assert imagenet_classes()[number] in found


@pytest.mark.shared_data
def test_captions_of_test_photographs_beat_a_constant_one(shared_data: Path) -> None:
    """Would catch colors, sizes or words that differ between training and captioning: BLEU-4 falls by half then."""
    root = shared_data / "flickr8k"
    records = [r for r in read_dataset("flickr8k", root) if r.split == "test" and r.path][:100]
    captions = load().caption([r.path for r in records if r.path])
    references = {r.image_id: list(r.captions) for r in records}
    ours = score_captions(dict(zip(references, captions, strict=True)), references)
    constant = score_captions(dict.fromkeys(references, CONSTANT), references)
    assert ours["CIDEr-D"].value > 3 * constant["CIDEr-D"].value
    assert ours["BLEU-4"].value > 12
