"""Describing clips: potentials as features, and the encoder that reads their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from captioner.crf.predictions import NodePotentials, Potentials, write_potentials
from captioner.errors import DataError, FeatureStoreError
from captioner.features.label_predictions import open_store
from captioner.features.store import FeatureStore

LABELS = {"activity": ("-", "cut", "take out"), "object": ("-", "cutting board", "knife")}
NAMES = tuple(f"{node}={label}" for node, labels in LABELS.items() for label in labels)
ASSIGNMENTS = [(1, 2), (2, 1), (0, 0), (2, 0)]  # cut knife; take out cutting board; nothing; take out


def potentials(probability: float = 0.7) -> Potentials:
    nodes = {}
    for column, (node, labels) in enumerate(LABELS.items()):
        best = np.array([assignment[column] for assignment in ASSIGNMENTS])
        rest = (1 - probability) / (len(labels) - 1)
        table = np.where(np.eye(len(labels))[best] > 0, probability, rest)
        nodes[node] = NodePotentials(labels, np.log(table).astype(np.float32), best)
    return Potentials(list("abcd"), nodes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_potentials(tmp_path / "p.h5", potentials())
    return tmp_path / "p.h5"


def test_potentials_are_read_as_features(file: Path):
    """Would catch nodes in another order, the two kinds exchanged, or clips by row instead of by name."""
    best, chances = open_store(f"{file}@max"), open_store(f"{file}@prob")
    assert best.spec.names == chances.spec.names == NAMES
    np.testing.assert_array_equal(best.get(["b", "a"]), [[0, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1]])
    np.testing.assert_allclose(chances.get(["c"]), [[0.7, 0.15, 0.15, 0.7, 0.15, 0.15]], rtol=1e-5)
    assert best.spec.digest != chances.spec.digest, "a model of one must not take the other"


def test_what_is_no_store_is_refused_by_name(file: Path, tmp_path: Path):
    with pytest.raises(FeatureStoreError, match=r"p\.h5@max or .*p\.h5@prob"):
        open_store(f"{file}@best")
    with pytest.raises(DataError, match="no potentials of x; predict these clips too"):
        open_store(f"{file}@max").get(["a", "x"])
    odd = tmp_path / "images@home.h5"
    odd.touch()
    assert isinstance(open_store(odd), FeatureStore), "an @ in the name of a file that is there is part of the name"
