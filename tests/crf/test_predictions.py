"""Label predictions: the file, its errors, the example of its documentation, mixing and evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.crf.predictions import (
    KINDS,
    LabelPredictions,
    NodePredictions,
    calibration_error,
    evaluate,
    read_label_predictions,
    write_label_predictions,
)
from captioner.data.clips import NULL
from captioner.errors import DataError
from tests.conftest import CHECKOUT
from tests.fixtures.make_formats import make_label_predictions

FIXTURES = CHECKOUT / "tests" / "fixtures"
PAGE = CHECKOUT / "docs" / "label-predictions.md"


def logs(rows: object) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, np.float32))


def example() -> LabelPredictions:
    activity = NodePredictions(("cut", "take out"), logs([[0.75, 0.25], [0, 1]]), np.array([0, 1]))
    things = ("-", "carrot", "cutting board")
    best = np.array([1, 2])  # not the most probable ones: jointly best is another thing
    node = NodePredictions(things, logs([[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]]), best)
    source = NodePredictions(("-", "drawer"), logs([[1, 0], [0.5, 0.5]]), np.array([0, 0]))
    return LabelPredictions(["a_0_9", "b_0_9"], {"activity": activity, "object": node, "source": source}, "by hand")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Would catch nodes in the order of the alphabet, as HDF5 lists them."""
    nodes = example().nodes
    predictions = LabelPredictions(
        example().ids, {name: nodes[name] for name in ("source", "object", "activity")}, "by hand"
    )
    write_label_predictions(tmp_path / "p.h5", predictions)
    read = read_label_predictions(tmp_path / "p.h5")
    assert (read.ids, read.source, list(read.nodes)) == (predictions.ids, "by hand", ["source", "object", "activity"])
    for name, node in predictions.nodes.items():
        assert read.nodes[name].labels == node.labels
        assert np.array_equal(read.nodes[name].log_marginals, node.log_marginals)
        assert np.array_equal(read.nodes[name].map, node.map)


def test_vectors_and_words() -> None:
    """Would catch best labels taken from the probabilities, and labels of several words that stay one."""
    predictions = example()
    assert predictions.vector("map").tolist() == [[1, 0, 0, 1, 0, 1, 0], [0, 1, 0, 0, 1, 1, 0]]
    assert predictions.vector("marginals").tolist() == [
        [0.75, 0.25, 0.5, 0.25, 0.25, 1, 0],
        [0, 1, 0.125, 0.5, 0.375, 0.5, 0.5],
    ]
    assert predictions.vector("marginals").dtype == predictions.vector("map").dtype == np.float32
    assert predictions.words(0) == ["cut", "carrot"]
    assert predictions.words(1) == ["take", "out", "cutting", "board"]
    assert predictions.assignment(1) == ("take out", "cutting board", NULL)
    with pytest.raises(ValueError, match="kind: 'best' is not one of map, marginals"):
        predictions.vector("best")


def test_clips_are_chosen_by_id() -> None:
    predictions = example()
    assert predictions.select(["b_0_9", "a_0_9", "b_0_9"]).tolist() == [1, 0, 1]
    assert predictions.subset(["b_0_9"]).words(0) == predictions.words(1)
    with pytest.raises(DataError, match="no label predictions for x, y, z and 1 more"):
        predictions.select(["a_0_9", "x", "y", "z", "u"])


Change = Callable[[h5py.File], object]


def replace(name: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def texts(*names: str) -> np.ndarray:
    return np.array(names, h5py.string_dtype())


def declare(file: h5py.File) -> None:
    """Declare a billion clips and store none of them."""
    del file["ids"]
    file.create_dataset("ids", (10**9,), h5py.string_dtype(), chunks=(1024,))


WRONG: dict[str, tuple[Change, str]] = {
    "no format": (lambda file: file.attrs.pop("format"), "not one of label predictions"),
    "version": (
        lambda file: file.attrs.update(version=1),
        "label predictions of version 1; this captioner reads version 2",
    ),
    "no nodes": (lambda file: file.attrs.pop("nodes"), "lacks 'nodes'"),
    "no ids": (lambda file: file.pop("ids"), "lacks 'ids'"),
    "no labels": (lambda file: file.pop("object/labels"), "lacks object/labels"),
    "node not there": (lambda file: file.attrs.update(nodes=["activity", "tool"]), "lacks tool/labels"),
    "node twice": (
        lambda file: file.attrs.update(nodes=["activity", "activity"]),
        "duplicate node in activity, activity",
    ),
    "id twice": (replace("ids", texts("a", "a")), "duplicate clip a"),
    "label twice": (replace("object/labels", texts("a", "b", "a")), "node object has the duplicate label a"),
    "too few labels": (replace("object/labels", texts("a", "b")), r"log_marginals has shape \(2, 3\), but 2 labels"),
    "too few clips": (
        replace("object/log_marginals", np.zeros((1, 3))),
        r"log_marginals has shape \(1, 3\), expected \(2, 3\)",
    ),
    "flat": (replace("object/log_marginals", np.zeros(3)), r"log_marginals has shape \(3,\)"),
    "map is too short": (replace("object/map", np.zeros(1, int)), r"map has shape \(1,\), expected \(2,\)"),
    "map counts from 1": (replace("object/map", np.array([1, 3])), "clip b_0_9 is 3; it must be 0 to 2"),
    "map is names": (replace("object/map", texts("-", "-")), "indices of labels"),
    "NaN": (replace("object/log_marginals", np.full((2, 3), np.nan)), "clip a_0_9 and 1 more holds NaN"),
    "probabilities": (replace("object/log_marginals", np.full((2, 3), 1 / 3)), "sum to 4.187, not 1; write normalized"),
    "base 10": (replace("object/log_marginals", np.log10(np.full((2, 3), 1 / 3))), "sum to 1.862, not 1"),
    "infinite": (replace("object/log_marginals", np.full((2, 3), np.inf)), "sum to inf"),
    "texts for numbers": (replace("object/log_marginals", texts("a", "b")), "but 3 labels"),
    "texts in a table": (replace("object/log_marginals", np.full((2, 3), "a", h5py.string_dtype())), "damaged"),
    "another file": (replace("object/labels", h5py.ExternalLink("other.h5", "x")), "labels is not a dataset stored"),
    "a billion clips": (declare, "damaged.*declares 1000000000 texts"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, what: str) -> None:
    """Would catch a file that is read although its numbers mean something else."""
    change, match = WRONG[what]
    path = tmp_path / "p.h5"
    write_label_predictions(path, example())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=match) as caught:
        read_label_predictions(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such label-predictions file"):
        read_label_predictions(tmp_path / "p.h5")
    (tmp_path / "p.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with pytest.raises(DataError, match="not an HDF5 file"):
        read_label_predictions(tmp_path / "p.h5")


def test_nothing_wrong_is_written(tmp_path: Path) -> None:
    """Would catch a file that can be written and not read, and one that is left half written."""
    node = NodePredictions(("a", "b"), np.full((2, 2), np.nan, np.float32), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="NaN"):
        write_label_predictions(tmp_path / "p.h5", LabelPredictions(["a", "b"], {"object": node}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ids", "a/b", ".", ""])
def test_nodes_that_a_group_cannot_be_named_after(tmp_path: Path, name: str) -> None:
    """Would catch a node that overwrites the clips' ids or nests its datasets."""
    node = NodePredictions(("a",), np.zeros((1, 1), np.float32), np.zeros(1, np.int64))
    with pytest.raises(DataError, match="not a valid node name"):
        write_label_predictions(tmp_path / "p.h5", LabelPredictions(["a"], {name: node}))


def test_a_file_of_no_clips(tmp_path: Path) -> None:
    node = NodePredictions(("a", "b"), np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    write_label_predictions(tmp_path / "p.h5", LabelPredictions([], {"object": node}))
    assert len(read_label_predictions(tmp_path / "p.h5")) == 0


def test_the_page_of_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a page that others follow and whose files cannot be read."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    lines = code[1].splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith("import")]) <= 10
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    predictions = read_label_predictions(tmp_path / "label-predictions.h5")
    assert len(predictions) == 2 and list(predictions.nodes) == ["activity", "object"]
    assert np.array_equal(predictions.nodes["object"].map, predictions.nodes["object"].log_marginals.argmax(1))
    assert predictions.words(0) == ["take", "out", "knife"]


def test_evaluation() -> None:
    """Would catch unknown labels counted as wrong, or a joint accuracy over the nodes of different clips."""
    predictions = example()
    truth = np.array([[0, 0, -1], [1, 2, 0]])
    result = evaluate(predictions, truth)
    assert result.accuracy == {"activity": 1.0, "object": 0.5, "source": 1.0}
    assert (result.joint_accuracy, result.clips, result.mean_accuracy) == (0.5, 2, pytest.approx(2.5 / 3))
    assert result.log_prob == pytest.approx(np.log([0.75, 1, 0.5, 0.375, 0.5]).mean())
    assert "object 50.0%" in str(result) and "joint 50.0%" in str(result)
    nothing = evaluate(predictions, np.full((2, 3), -1))
    assert nothing.clips == 0 and np.isnan(nothing.joint_accuracy) and np.isnan(nothing.mean_accuracy)
    assert np.isfinite(
        evaluate(predictions, np.array([[0, 0, 1], [0, 0, 0]])).log_prob
    )  # of something called impossible


def test_calibration_error() -> None:
    """Would catch bins that are not weighed by their share, or confidence of another label than the best."""
    log_prob = logs([[0.8, 0.2]] * 10 + [[0.4, 0.6]] * 30)
    labels = np.array([0] * 8 + [1] * 2 + [0] * 30)
    assert calibration_error(log_prob[:10], labels[:10]) == pytest.approx(0, abs=1e-6)
    assert calibration_error(log_prob, labels) == pytest.approx(0.75 * 0.6, abs=1e-6)
    assert calibration_error(logs([[1, 0]]), np.array([0])) == 0
    random = np.random.default_rng(0)
    drawn = random.dirichlet(np.ones(5), 20000)
    truth = (drawn.cumsum(1) > random.random((20000, 1))).argmax(1)
    assert calibration_error(np.log(drawn), truth) < 0.02
    assert calibration_error(np.log(drawn**3 / (drawn**3).sum(1, keepdims=True)), truth) > 0.1


@st.composite
def label_predictions(draw: st.DrawFn) -> LabelPredictions:
    """Valid predictions: any names, probabilities with zeros, MAP labels that need not be the most probable ones."""
    text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/."), min_size=1, max_size=8)
    ids = draw(st.lists(text, unique=True, max_size=4))
    names = draw(st.lists(text, unique=True, min_size=1, max_size=3))
    nodes = {}
    for name in names:
        labels = tuple(draw(st.lists(text, unique=True, min_size=1, max_size=4)))
        weights = st.lists(st.integers(0, 5), min_size=len(labels), max_size=len(labels)).filter(any)
        rows = np.array([draw(weights) for _ in ids], np.float32).reshape(len(ids), len(labels))
        chosen = [draw(st.integers(0, len(labels) - 1)) for _ in ids]
        nodes[name] = NodePredictions(labels, logs(rows / rows.sum(1, keepdims=True)), np.array(chosen, np.int64))
    return LabelPredictions(ids, nodes, draw(text))


@settings(max_examples=50)
@given(label_predictions())
def test_any_predictions_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, predictions: LabelPredictions
) -> None:
    """Would catch names, orders, zeros or an empty file that the format cannot hold."""
    path = tmp_path_factory.mktemp("predictions") / "p.h5"
    write_label_predictions(path, predictions)
    read = read_label_predictions(path)
    assert (read.ids, read.labels, read.source) == (predictions.ids, predictions.labels, predictions.source)
    assert list(read.nodes) == list(predictions.nodes)
    for kind in KINDS:
        np.testing.assert_array_equal(read.vector(kind), predictions.vector(kind))


def test_a_stored_file_of_this_version_is_read() -> None:
    """Would catch a change of the format without a new version number. Written by tests/fixtures/make_formats.py."""
    read = read_label_predictions(FIXTURES / "label-predictions-v2.h5")
    assert read.ids == ["s1_0_9", "s1_9_20"] and read.source == "fixture"
    assert read.labels == {"activity": ("-", "cut", "take out"), "object": ("-", "knife")}
    assert [read.assignment(row) for row in range(2)] == [("take out", "knife"), ("cut", "-")]
    assert read.vector("marginals").tolist() == [[0.25, 0.25, 0.5, 0.5, 0.5], [0, 1, 0, 0.75, 0.25]]


@pytest.mark.parametrize("name", ["ids", "activity/labels"])
def test_numbers_in_place_of_texts_are_not_read(tmp_path: Path, name: str) -> None:
    """Would catch gigabytes of zeros that a small file declares as its labels."""
    make_label_predictions(tmp_path)
    path = tmp_path / "label-predictions-v2.h5"
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, (10**9,), "f2")
    with pytest.raises(DataError, match=f"{name} holds float16 of shape"):
        read_label_predictions(path)
