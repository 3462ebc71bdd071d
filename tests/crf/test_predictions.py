"""The potentials file: what goes in comes out, what is wrong with one is said, and the page's example works."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from captioner.crf.predictions import (
    NodePotentials,
    Potentials,
    assess,
    calibration_error,
    read_potentials,
    with_truth,
    write_potentials,
)
from captioner.data.clips import NULL
from captioner.errors import DataError
from tests.conftest import CHECKOUT

PAGE = CHECKOUT / "docs" / "potentials.md"


def logs(*rows: list[float]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, np.float32))


def example() -> Potentials:
    activity = NodePotentials(("cut", "take out"), logs([0.75, 0.25], [0, 1]), np.array([0, 1]))
    things = ("-", "carrot", "cutting board")
    best = np.array([1, 2])  # not the most probable ones: jointly best is another thing
    node = NodePotentials(things, logs([0.5, 0.25, 0.25], [0.125, 0.5, 0.375]), best)
    source = NodePotentials(("-", "drawer"), logs([1, 0], [0.5, 0.5]), np.array([0, 0]))
    return Potentials(["a_0_9", "b_0_9"], {"activity": activity, "object": node, "source": source}, "by hand")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Would catch nodes in the order of the alphabet, as HDF5 lists them."""
    nodes = example().nodes
    potentials = Potentials(example().ids, {name: nodes[name] for name in ("source", "object", "activity")}, "by hand")
    write_potentials(tmp_path / "p.h5", potentials)
    read = read_potentials(tmp_path / "p.h5")
    assert (read.ids, read.source, list(read.nodes)) == (potentials.ids, "by hand", ["source", "object", "activity"])
    for name, node in potentials.nodes.items():
        assert read.nodes[name].labels == node.labels
        assert np.array_equal(read.nodes[name].log_prob, node.log_prob)
        assert np.array_equal(read.nodes[name].best, node.best)


def test_vectors_and_words() -> None:
    """Would catch best labels taken from the probabilities, and labels of several words that stay one."""
    potentials = example()
    assert potentials.vector("max").tolist() == [[1, 0, 0, 1, 0, 1, 0], [0, 1, 0, 0, 1, 1, 0]]
    assert potentials.vector("prob").tolist() == [
        [0.75, 0.25, 0.5, 0.25, 0.25, 1, 0],
        [0, 1, 0.125, 0.5, 0.375, 0.5, 0.5],
    ]
    assert potentials.vector("prob").dtype == potentials.vector("max").dtype == np.float32
    assert potentials.words(0) == ["cut", "carrot"]
    assert potentials.words(1) == ["take", "out", "cutting", "board"]
    assert potentials.tuple_of(1) == ("take out", "cutting board", NULL)
    with pytest.raises(ValueError, match="kind: 'best' is not one of max, prob"):
        potentials.vector("best")


def test_clips_are_chosen_by_id() -> None:
    potentials = example()
    assert potentials.select(["b_0_9", "a_0_9", "b_0_9"]).tolist() == [1, 0, 1]
    assert potentials.subset(["b_0_9"]).words(0) == potentials.words(1)
    with pytest.raises(DataError, match="no potentials of x, y, z and 1 more"):
        potentials.select(["a_0_9", "x", "y", "z", "u"])


def test_other_labels_are_named() -> None:
    """A describer that was trained on other labels would read nonsense from a vector of the right length."""
    potentials = example()
    potentials.check_labels(potentials.labels)
    labels = {name: list(values) for name, values in potentials.labels.items()}
    for change, match in (
        ({"object": ["-", "carrot", "plate"]}, "node object has 3, the model has 3 .'cutting board' is in one only."),
        ({"object": ["-", "cutting board", "carrot"]}, "their order differs"),
        ({"object": [*labels["object"], "plate"]}, "'plate' is in one only"),
        ({"target": ["-"]}, "nodes activity, object, source; the model has activity, object, source, target"),
    ):
        with pytest.raises(DataError, match=match):
            potentials.check_labels(labels | change)


Change = Callable[[h5py.File], object]


def replace(name: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def texts(*names: str) -> np.ndarray:
    return np.array(names, h5py.string_dtype())


WRONG: dict[str, tuple[Change, str]] = {
    "no format": (lambda file: file.attrs.pop("format"), "not of potentials"),
    "version": (lambda file: file.attrs.update(version=2), "potentials of version 2; this captioner reads 1"),
    "no nodes": (lambda file: file.attrs.pop("nodes"), "lacks 'nodes'"),
    "no ids": (lambda file: file.pop("ids"), "lacks 'ids'"),
    "no labels": (lambda file: file.pop("object/labels"), "lacks object/labels"),
    "node not there": (lambda file: file.attrs.update(nodes=["activity", "tool"]), "lacks tool/labels"),
    "node twice": (lambda file: file.attrs.update(nodes=["activity", "activity"]), "a node is named twice"),
    "id twice": (replace("ids", texts("a", "a")), "a clip is there twice: a"),
    "label twice": (replace("object/labels", texts("a", "b", "a")), "node object has a label twice: a"),
    "too few labels": (replace("object/labels", texts("a", "b")), r"log_prob has shape \(2, 3\), its labels are 2"),
    "too few clips": (replace("object/log_prob", np.zeros((1, 3))), r"log_prob has shape \(1, 3\), expected \(2, 3\)"),
    "flat": (replace("object/log_prob", np.zeros(3)), r"log_prob has shape \(3,\)"),
    "best is too short": (replace("object/best", np.zeros(1, int)), r"best has shape \(1,\), expected \(2,\)"),
    "best counts from 1": (replace("object/best", np.array([1, 3])), "clip b_0_9 is label 3 of 3; they count from 0"),
    "best is names": (replace("object/best", texts("-", "-")), "indices of labels"),
    "NaN": (replace("object/log_prob", np.full((2, 3), np.nan)), "clip a_0_9 and 1 more holds NaN"),
    "probabilities": (replace("object/log_prob", np.full((2, 3), 1 / 3)), "sum to 4.187, not 1; write normalized"),
    "base 10": (replace("object/log_prob", np.log10(np.full((2, 3), 1 / 3))), "sum to 1.862, not 1"),
    "infinite": (replace("object/log_prob", np.full((2, 3), np.inf)), "sum to inf"),
    "texts for numbers": (replace("object/log_prob", texts("a", "b")), "damaged"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, what: str) -> None:
    """Would catch a file that is read although its numbers mean something else."""
    change, match = WRONG[what]
    path = tmp_path / "p.h5"
    write_potentials(path, example())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=match) as caught:
        read_potentials(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such potentials file"):
        read_potentials(tmp_path / "p.h5")
    (tmp_path / "p.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with pytest.raises(DataError, match="not an HDF5 file"):
        read_potentials(tmp_path / "p.h5")


def test_nothing_wrong_is_written(tmp_path: Path) -> None:
    """Would catch a file that can be written and not read, and one that is left half written."""
    node = NodePotentials(("a", "b"), np.full((2, 2), np.nan, np.float32), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="NaN"):
        write_potentials(tmp_path / "p.h5", Potentials(["a", "b"], {"object": node}))
    assert not list(tmp_path.iterdir())


def test_a_file_of_no_clips(tmp_path: Path) -> None:
    node = NodePotentials(("a", "b"), np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    write_potentials(tmp_path / "p.h5", Potentials([], {"object": node}))
    assert len(read_potentials(tmp_path / "p.h5")) == 0


def test_the_page_of_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a page that others follow and whose files cannot be read."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    lines = code[1].splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith("import")]) <= 10
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    potentials = read_potentials(tmp_path / "potentials.h5")
    assert len(potentials) == 2 and list(potentials.nodes) == ["activity", "object"]
    assert np.array_equal(potentials.nodes["object"].best, potentials.nodes["object"].log_prob.argmax(1))
    assert potentials.words(0) == ["take", "out", "knife"]


def test_assessment() -> None:
    """Would catch unknown labels counted as wrong, or a joint accuracy over the nodes of different clips."""
    potentials = example()
    truth = np.array([[0, 0, -1], [1, 2, 0]])
    result = assess(potentials, truth)
    assert result.accuracy == {"activity": 1.0, "object": 0.5, "source": 1.0}
    assert (result.joint, result.clips, result.mean) == (0.5, 2, pytest.approx(2.5 / 3))
    assert result.log_prob == pytest.approx(np.log([0.75, 1, 0.5, 0.375, 0.5]).mean())
    assert "object 50.0%" in str(result) and "joint 50.0%" in str(result)
    nothing = assess(potentials, np.full((2, 3), -1))
    assert nothing.clips == 0 and np.isnan(nothing.joint) and np.isnan(nothing.mean)
    assert np.isfinite(assess(potentials, np.array([[0, 0, 1], [0, 0, 0]])).log_prob)  # of something called impossible


def test_truth_is_mixed_in_where_it_is_known(tmp_path: Path) -> None:
    """Would catch a clip of another row that learns its labels, and probabilities that do not sum to 1."""
    before = example()
    mixed = with_truth(before, np.array([[-1, 2, -1], [-1, -1, -1]]), 0.5)
    assert np.exp(mixed.nodes["object"].log_prob[0]) == pytest.approx([0.25, 0.125, 0.625])
    assert mixed.tuple_of(0) == ("cut", "cutting board", "-") and mixed.tuple_of(1) == before.tuple_of(1)
    assert (mixed.nodes["object"].log_prob[1] == before.nodes["object"].log_prob[1]).all()
    assert before.tuple_of(0)[1] == "carrot" and "true labels" in mixed.source
    write_potentials(tmp_path / "mixed.h5", mixed)
    sure = with_truth(before, np.array([[1, 0, 1], [0, 0, 0]]), 1)
    assert set(np.unique(sure.vector("prob"))) == {0, 1} and (sure.vector("prob") == sure.vector("max")).all()


def test_calibration_error() -> None:
    """Would catch bins that are not weighed by their share, or confidence of another label than the best."""
    log_prob = logs(*[[0.8, 0.2]] * 10, *[[0.4, 0.6]] * 30)
    labels = np.array([0] * 8 + [1] * 2 + [0] * 30)
    assert calibration_error(log_prob[:10], labels[:10]) == pytest.approx(0, abs=1e-6)
    assert calibration_error(log_prob, labels) == pytest.approx(0.75 * 0.6, abs=1e-6)
    assert calibration_error(logs([1, 0]), np.array([0])) == 0
    random = np.random.default_rng(0)
    drawn = random.dirichlet(np.ones(5), 20000)
    truth = (drawn.cumsum(1) > random.random((20000, 1))).argmax(1)
    assert calibration_error(np.log(drawn), truth) < 0.02
    assert calibration_error(np.log(drawn**3 / (drawn**3).sum(1, keepdims=True)), truth) > 0.1
