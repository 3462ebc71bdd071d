"""Label predictions as a feature store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captioner.crf.predictions import LabelPredictions, NodePredictions, write_label_predictions
from captioner.errors import DataError, FeatureStoreError
from captioner.features.label_predictions import KEYS, LabelPredictionsStore, open_store
from captioner.features.spec import Store
from captioner.features.store import FeatureStore

LABELS = {"activity": ("-", "cut", "take out"), "object": ("-", "cutting board", "knife")}
NAMES = tuple(f"{node}={label}" for node, labels in LABELS.items() for label in labels)
ASSIGNMENTS = [(1, 2), (2, 1), (0, 0), (2, 0)]  # cut knife; take out cutting board; nothing; take out


def predictions(probability: float = 0.7) -> LabelPredictions:
    nodes = {}
    for column, (node, labels) in enumerate(LABELS.items()):
        best = np.array([assignment[column] for assignment in ASSIGNMENTS])
        rest = (1 - probability) / (len(labels) - 1)
        table = np.where(np.eye(len(labels))[best] > 0, probability, rest)
        nodes[node] = NodePredictions(labels, np.log(table).astype(np.float32), best)
    return LabelPredictions(list("abcd"), nodes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_label_predictions(tmp_path / "p.h5", predictions())
    return tmp_path / "p.h5"


def test_label_predictions_are_read_as_features(file: Path) -> None:
    """Would catch nodes in another order, the two kinds exchanged, or clips by row instead of by name."""
    best, chances = open_store(f"{file}@map"), open_store(f"{file}@marginals")
    assert best.spec.names == chances.spec.names == NAMES
    np.testing.assert_array_equal(best.get(["b", "a"]), [[0, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1]])
    np.testing.assert_allclose(chances.get(["c"]), [[0.7, 0.15, 0.15, 0.7, 0.15, 0.15]], rtol=1e-5)
    assert best.spec.digest != chances.spec.digest, "a model of one must not take the other"


def test_a_sentence_has_the_predictions_of_its_clip(file: Path) -> None:
    """Would catch a sentence without predictions of its own that is refused, or gets another clip's."""
    store = open_store(f"{file}@map")
    np.testing.assert_array_equal(store.get(["b#2", "a#1", "b"]), store.get(["b", "a", "b"]))
    own = LabelPredictionsStore(file, "map", replace(predictions(), ids=["a", "b", "a#1", "d"]))
    np.testing.assert_array_equal(own.get(["a#1", "a#2"]), store.get(["c", "a"]))


def test_what_is_no_store_is_refused_by_name(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatureStoreError, match=r"p\.h5@map or .*p\.h5@marginals"):
        open_store(f"{file}@best")
    with pytest.raises(DataError, match="no label predictions for x; predict these clips too"):
        open_store(f"{file}@map").get(["a", "x"])
    odd = tmp_path / "images@home.h5"
    odd.touch()
    assert isinstance(open_store(odd), FeatureStore), "an @ in the name of a file that is there is part of the name"


@pytest.mark.parametrize("kind", ["map", "marginals"])
def test_the_store_is_what_the_protocol_asks_for(file: Path, kind: str) -> None:
    """Would catch a property that readers of features rely on and that a label-predictions file lacks."""
    store: Store = LabelPredictionsStore(file, kind)
    assert (store.spec.key, KEYS[store.spec.key], store.spec.shape) == (f"labels@{kind}", kind, (len(NAMES),))
    assert (store.path, store.weights_digest, store.dtype, list(store.unfinished)) == (file, "", "float32", [])
    assert list(store.ids) == list("abcd") and store.get(["d"]).dtype == np.float32
    assert store.summary()["key"] == store.spec.key


def test_summaries_tell_predictions_apart(file: Path, tmp_path: Path) -> None:
    """Would catch cached captions that are taken for those of other predictions."""
    write_label_predictions(tmp_path / "other.h5", predictions(0.6))
    one, other = (open_store(f"{path}@marginals").summary() for path in (file, tmp_path / "other.h5"))
    assert one != other
