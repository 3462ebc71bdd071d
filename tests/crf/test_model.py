"""The CRF's file."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from captioner.crf.clips import ClipArrays
from captioner.crf.model import CRF, FORMAT, CRFConfig, CRFFile, FeatureSource, Fold, load_crf, save_crf
from captioner.crf.predictor import predict
from captioner.errors import CheckpointError, ConfigError, DataError
from tests.conftest import CHECKOUT

FIXTURES = CHECKOUT / "tests" / "fixtures"
EXPECTED = [[0.0192, 0.9808], [0.16643, 0.83357]]  # regression only: no outside source
LABELS = {"activity": ("cut", "wash", "peel"), "object": ("carrot", "plate")}


def test_a_crf_file_gives_back_what_went_in(tmp_path: Path) -> None:
    """Would catch a buffer, an edge or the order of labels lost on the way."""
    torch.manual_seed(0)
    model = CRF(CRFConfig("tree", True, "mlp", hidden_dim=4), LABELS, 5, [(0, 1)]).eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), model.feature_mean]:
            tensor.normal_()
    clips = ClipArrays(list("abc"), ["v", "v", "w"], np.eye(3, 5, dtype=np.float32), np.full((3, 2), -1))
    source = FeatureSource("compact", 5, "0123", "4567")
    path = tmp_path / "crf.safetensors"
    save_crf(path, CRFFile(model, (Fold(frozenset("ab"), copy.deepcopy(model)),), (source,), {"clips": 120}))
    file = load_crf(path)
    assert (file.model.labels, file.model.edges, file.model.config) == (model.labels, [(0, 1)], model.config)
    assert (file.features, file.training["clips"]) == ((source,), 120) and "torch" in file.provenance
    assert [fold.clip_ids for fold in file.folds] == [frozenset("ab")]
    one, two = (predict(crf, clips)[0] for crf in (model, file))
    assert all(np.array_equal(one.nodes[name].log_marginals, two.nodes[name].log_marginals) for name in LABELS)
    assert all(np.array_equal(one.nodes[name].map, two.nodes[name].map) for name in LABELS)


def test_crf_files_that_cannot_be_read(tmp_path: Path) -> None:
    """One line says what is wrong; nothing is guessed."""
    model = CRF(CRFConfig(), LABELS, 3, [(0, 1)])
    good = tmp_path / "crf.safetensors"
    save_crf(good, CRFFile(model))
    with safetensors.safe_open(good, "pt") as stream:
        header, tensors = json.loads(stream.metadata()[FORMAT]), model.state_dict()
    tensors = {f"crf.{name}": tensor for name, tensor in tensors.items()}

    def refused(
        match: str, tensors: dict[str, Tensor] = tensors, key: str = "captioner-crf", **changes: object
    ) -> None:
        bad = tmp_path / "bad.safetensors"
        safetensors.torch.save_file(tensors, bad, {key: json.dumps(header | changes)})
        with pytest.raises(CheckpointError, match=match):
            load_crf(bad)

    refused("a CRF of version 1; this captioner reads version 2", version=1)
    refused("not a CRF of captioner", key="other")
    refused("graph", config={"graph": "loopy"})
    refused("unknown key", config={"grpah": "tree"})
    refused(r"is \(3,\), not \(4,\)", feature_dim=4)
    refused("not finite", tensors | {"crf.output.bias": torch.full((5,), torch.nan)})
    refused("torch.int64, not torch.float32", tensors | {"crf.output.bias": torch.zeros(5, dtype=torch.int64)})
    refused("not a valid CRF file: OverflowError", feature_dim=float("inf"))
    refused("crf.output.bias is missing", {name: one for name, one in tensors.items() if name != "crf.output.bias"})
    refused("edges", edges=[[0, 7]])
    (tmp_path / "cut").write_bytes(good.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        load_crf(tmp_path / "cut")
    with pytest.raises(CheckpointError, match="no such CRF file"):
        load_crf(tmp_path / "none")
    with pytest.raises(ConfigError, match="unary: 'deep' is not one of linear, mlp"):
        CRFConfig(unary="deep")
    with pytest.raises(DataError, match="the features have dimension 2, but the CRF was trained on 3"):
        predict(model, ClipArrays(["a"], ["a"], np.zeros((1, 2), np.float32), np.zeros((1, 2), np.int64)))


def test_a_stored_file_of_this_version_is_read() -> None:
    """Would catch a change of the format without a new version number. Written by tests/fixtures/make_formats.py."""
    file = load_crf(FIXTURES / "crf-v2.safetensors")
    assert file.model.config == CRFConfig("complete", True, "mlp", hidden_dim=2)
    assert (file.model.labels, file.model.edges, file.model.inference) == (LABELS, [(0, 1)], "exact")
    assert file.features == (FeatureSource("compact", 3, "0123456789abcdef", "fedcba9876543210"),)
    assert [fold.clip_ids for fold in file.folds] == [frozenset({"s1_0_9"})]
    assert file.training == {"clips": 2}
    clips = ClipArrays(["s1_0_9", "s2_0_9"], ["s1", "s2"], np.eye(2, 3, dtype=np.float32), np.full((2, 2), -1))
    found = np.exp(predict(file, clips)[0].nodes["object"].log_marginals)
    np.testing.assert_allclose(found, EXPECTED, atol=1e-4)


@pytest.mark.parametrize(("name", "value"), [("feature_std", 0.0), ("output.weight", 3e38)])
def test_probabilities_that_are_no_numbers_are_an_error(name: str, value: float) -> None:
    """Would catch finite numbers of a damaged file that make NaN, which would be read as label 0."""
    model = CRF(CRFConfig(), LABELS, 3, [(0, 1)]).eval()
    model.state_dict()[name].fill_(value)
    features = np.array([[0, 4, -4], [1, 1, 1]], np.float32)
    with pytest.raises(DataError, match="the CRF gives probabilities that are not numbers"):
        predict(model, ClipArrays(["a", "b"], ["v", "v"], features, np.full((2, 2), -1)))
