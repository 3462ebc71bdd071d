"""Backbones in ONNX Runtime: the features of torch, where that pays."""

from __future__ import annotations

import pytest
import torch

from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone
from captioner.backbones.compact import CompactCNN
from captioner.backbones.onnx import WORTH_A_GRAPH, OnnxBackbone, fastest_backbone


def compact() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("compact", state=CompactCNN().state_dict())


@torch.inference_mode()
def check_features(fast: Backbone, slow: Backbone) -> None:
    images = torch.rand(3, 3, slow.spec.size, slow.spec.size)
    wanted = slow(images)
    torch.testing.assert_close(fast(images), wanted, rtol=0, atol=1e-3 * float(wanted.std()))
    assert (fast.spec, fast.weights_digest) == (slow.spec, slow.weights_digest)


def test_the_default_backbone_needs_no_new_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a graph of other weights than the network's, and one that is written again for a few images."""
    monkeypatch.setattr("captioner.backbones.onnx.write_graph", None)
    slow = load_backbone("default")
    fast = fastest_backbone(slow, 1, device="cpu", precision="float32")
    assert isinstance(fast, OnnxBackbone)
    check_features(fast, slow)


def test_other_weights_do_not_use_the_default_backbones_graph() -> None:
    state = {name: value * 2 for name, value in load_backbone("default").network.state_dict().items()}
    slow = load_backbone("default", state=state)
    assert fastest_backbone(slow, 1, device="cpu", precision="float32") is slow


def test_a_graph_is_written_where_it_pays() -> None:
    pytest.importorskip("onnxscript")
    slow = compact()
    assert fastest_backbone(slow, WORTH_A_GRAPH - 1, device="cpu", precision="float32") is slow
    fast = fastest_backbone(slow, WORTH_A_GRAPH, device="cpu", precision="float32")
    assert isinstance(fast, OnnxBackbone)
    check_features(fast, slow)


def test_torch_stays_where_it_is_as_fast_or_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = compact()
    assert fastest_backbone(slow, 10_000, device="cpu", precision="bfloat16") is slow
    assert fastest_backbone(slow, 10_000, device="cuda", precision="float32") is slow
    without_norms = Backbone(slow.spec, torch.nn.Conv2d(3, slow.spec.dimension, slow.spec.size), _flat)
    assert fastest_backbone(without_norms, 10_000, device="cpu", precision="float32") is without_norms
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fastest_backbone(slow, 10_000, device="cpu", precision="float32") is slow


def _flat(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = network(images).flatten(1)
    return features
