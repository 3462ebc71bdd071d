"""Label predictions: per-clip label marginals and the MAP assignment, from our CRF or any other model; their file.

docs/label-predictions.md describes the file.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from captioner.data.clips import NULL, OBSERVATION
from captioner.data.records import Names
from captioner.errors import DataError, shorten
from captioner.files import atomic_path, check_readable, stored_dataset
from captioner.provenance import provenance

FORMAT = "captioner-label-predictions"
VERSION = 2
KINDS = ("map", "marginals")
"""The forms in which label predictions are read as vectors: one-hot MAP assignments, or all probabilities."""
TOLERANCE = 1e-3
"""Largest accepted difference from 1 of the sum of a node's probabilities."""
BINS = 15
"""Bins of the expected calibration error, as in Guo et al. (2017)."""
DOCS = "docs/label-predictions.md"


@dataclass(frozen=True, eq=False)
class NodePredictions:
    """Predictions of one node for N clips."""

    labels: tuple[str, ...]
    """The L labels."""
    log_marginals: np.ndarray
    """(N, L) float32, in nats; the probabilities of each row sum to 1, and minus infinity means probability 0."""
    map: np.ndarray
    """(N,) int64: index of the node's label in the clip's MAP assignment."""


@dataclass(frozen=True, eq=False)
class LabelPredictions:
    """Predictions of all nodes for N clips."""

    ids: list[str]
    """The N clip ids, without duplicates."""
    nodes: dict[str, NodePredictions]
    """Predictions by the node's name, in the order of vectors and words."""
    source: str = ""
    """Description of the model that made the predictions, for reports."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """Labels of each node."""
        return {name: node.labels for name, node in self.nodes.items()}

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each clip id."""
        return {name: row for row, name in enumerate(self.ids)}

    @cached_property
    def observations(self) -> dict[str, list[int]]:
        """Rows of each clip's observations, ``CLIP``, ``CLIP~2`` and so on, in the order of the file."""
        found: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(self.ids):
            found[name.partition(OBSERVATION)[0]].append(row)
        return dict(found)

    def select(self, ids: Sequence[str]) -> np.ndarray:
        """Rows (M,) int64 of ``ids``; raises ``DataError`` for ids without predictions."""
        names = Names(self.ids)
        missing = [name for name in ids if name not in names]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise DataError(f"no label predictions for {', '.join(missing[:3])}{more}; predict these clips too")
        return np.array([self.rows[names.find(name) or name] for name in ids], np.int64)

    def subset(self, ids: Sequence[str]) -> LabelPredictions:
        """The predictions of ``ids``, in that order; raises ``DataError`` as ``select`` does."""
        rows = self.select(ids)
        nodes = {
            name: NodePredictions(node.labels, node.log_marginals[rows], node.map[rows])
            for name, node in self.nodes.items()
        }
        return LabelPredictions(list(ids), nodes, self.source)

    def vector(self, kind: str) -> np.ndarray:
        """(N, sum of L) float32, nodes concatenated: one-hot MAP labels (``map``) or probabilities (``marginals``)."""
        if kind not in KINDS:
            raise ValueError(f"kind: {shorten(kind)} is not one of {', '.join(KINDS)}")
        if kind == "marginals":
            parts = [np.exp(node.log_marginals) for node in self.nodes.values()]
        else:
            parts = [np.eye(len(node.labels), dtype=np.float32)[node.map] for node in self.nodes.values()]
        return np.concatenate(parts, 1, dtype=np.float32)

    def assignment(self, row: int) -> tuple[str, ...]:
        """The MAP assignment of a clip, one label for each node."""
        return tuple(node.labels[node.map[row]] for node in self.nodes.values())

    def words(self, row: int) -> list[str]:
        """The words of the MAP assignment, node by node; ``take out`` has two words, ``NULL`` none."""
        return [word for label in self.assignment(row) if label != NULL for word in label.split()]


@dataclass(frozen=True)
class Evaluation:
    """Scores of label predictions over the clips whose gold labels are known; shares are in 0..1."""

    accuracy: dict[str, float]
    """Accuracy of each node's MAP label; nan if none of its gold labels is known."""
    joint_accuracy: float
    """Share of clips whose known labels are all correct."""
    log_prob: float
    """Mean log marginal of the gold labels, in nats; probability 0 counts as the smallest float32."""
    ece: dict[str, float]
    """Expected calibration error of each node's most probable label."""
    clips: int
    """Clips with at least one known gold label."""

    @property
    def mean_accuracy(self) -> float:
        """Accuracy, averaged over the nodes."""
        return float(np.nanmean(list(self.accuracy.values()))) if self.clips else float("nan")

    def __str__(self) -> str:
        nodes = "  ".join(f"{name} {share:.1%}" for name, share in self.accuracy.items())
        ece = float(np.nanmean(list(self.ece.values()))) if self.clips else float("nan")
        return f"{nodes}  mean {self.mean_accuracy:.1%}  joint {self.joint_accuracy:.1%}  ECE {ece:.3f}"


def evaluate(predictions: LabelPredictions, gold: np.ndarray) -> Evaluation:
    """Evaluate against gold labels (N, V) int64, -1 where unknown."""
    known = gold >= 0
    right = np.stack([node.map for node in predictions.nodes.values()], 1) == gold
    accuracy, ece, logs = {}, {}, []
    for v, (name, node) in enumerate(predictions.nodes.items()):
        here = known[:, v]
        labels, log_marginals = gold[here, v], node.log_marginals[here]
        accuracy[name] = float(right[here, v].mean()) if here.any() else float("nan")
        ece[name] = calibration_error(log_marginals, labels)
        logs.append(np.maximum(log_marginals[np.arange(len(labels)), labels], np.log(np.finfo(np.float32).tiny)))
    clips = known.any(1)
    joint = float((right | ~known)[clips].all(1).mean()) if clips.any() else float("nan")
    log_prob = float(np.concatenate(logs).mean()) if clips.any() else float("nan")
    return Evaluation(accuracy, joint, log_prob, ece, int(clips.sum()))


def calibration_error(log_marginals: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error of the most probable label (Guo et al. 2017, equation 3).

    ``log_marginals`` (N, L) in nats, ``labels`` (N,) int64; nan without rows.
    """
    if not len(labels):
        return float("nan")
    confidence = np.exp(log_marginals.max(1))
    right = log_marginals.argmax(1) == labels
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, right.astype(np.float64) - confidence, bins)
    return float(np.abs(gaps).sum() / len(labels))


def write_label_predictions(path: str | Path, predictions: LabelPredictions) -> None:
    """Write a label-predictions file atomically; raises ``DataError`` for contents that could not be read again."""
    _check(str(path), predictions)
    with atomic_path(path) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "source": predictions.source})
        file.attrs["nodes"] = list(predictions.nodes)
        file.attrs["provenance"] = json.dumps(provenance())
        file["ids"] = np.array(predictions.ids, h5py.string_dtype())
        for name, node in predictions.nodes.items():
            file[f"{name}/labels"] = np.array(node.labels, h5py.string_dtype())
            for part, values in (
                ("log_marginals", node.log_marginals.astype(np.float32)),
                ("map", node.map.astype(np.int64)),
            ):  # HDF5 verifies fletcher32 checksums on reading
                file.create_dataset(f"{name}/{part}", data=values, fletcher32=True)


def read_label_predictions(path: str | Path) -> LabelPredictions:
    """Read a label-predictions file; a node without ``map`` gets its most probable labels.

    Raises ``DataError``, which names the node and the clip, for another format or version, wrong shapes, invalid
    labels, NaN, and probabilities that do not sum to 1.
    """
    with _open(Path(path)) as file:
        attributes = dict(file.attrs)
        if attributes.get("format") != FORMAT:
            raise DataError(f"{path}: an HDF5 file, but not one of label predictions ({DOCS} says how to write one)")
        if attributes.get("version") != VERSION:
            version = attributes.get("version")
            raise DataError(f"{path}: label predictions of version {version}; this captioner reads version {VERSION}")
        for name, container in (("nodes", attributes), ("ids", file)):
            if name not in container:
                raise DataError(f"{path}: lacks {shorten(name)} ({DOCS} lists what a file holds)")
        names = [_text(name) for name in np.atleast_1d(attributes["nodes"])]
        ids = _texts(file, "ids")
        nodes = {name: _read_node(path, file, name, len(ids)) for name in names}
        if len(nodes) != len(names):
            raise DataError(f"{path}: duplicate node in {', '.join(names)}")
        predictions = LabelPredictions(ids, nodes, _text(attributes.get("source", "")))
    _check(str(path), predictions)
    return predictions


def _read_node(path: str | Path, file: h5py.File, name: str, count: int) -> NodePredictions:
    """The group of one node, for ``count`` clips; its values are not checked yet."""
    for part in ("labels", "log_marginals"):
        if f"{name}/{part}" not in file:
            raise DataError(f"{path}: lacks {name}/{part} ({DOCS} lists what a file holds)")
    labels = tuple(_texts(file, f"{name}/labels"))
    data = stored_dataset(file, f"{name}/log_marginals")
    if data.ndim != 2 or data.shape[1] != len(labels) or not labels:
        raise DataError(f"{path}: {name}/log_marginals has shape {data.shape}, but {len(labels)} labels")
    log_marginals = np.asarray(_rows(path, name, data, count), np.float32)
    if f"{name}/map" not in file:
        return NodePredictions(labels, log_marginals, log_marginals.argmax(1))
    data = stored_dataset(file, f"{name}/map")
    if data.dtype.kind not in "iu":
        raise DataError(f"{path}: {name}/map holds {data.dtype}; it should hold integers, indices of labels")
    return NodePredictions(labels, log_marginals, _rows(path, name, data, count).astype(np.int64))


def _texts(file: h5py.File, name: str) -> list[str]:
    """All strings of a dataset; other types are refused before reading, as a file may declare any number of them."""
    data = stored_dataset(file, name)
    if data.ndim != 1 or h5py.check_string_dtype(data.dtype) is None:
        raise ValueError(f"{name} holds {data.dtype} of shape {data.shape}; it should hold texts, one after another")
    return [_text(value) for value in data[:]]


def _rows(path: str | Path, name: str, data: h5py.Dataset, count: int) -> np.ndarray:
    """All of ``data``; it is read only if it has one row per clip, as a file may declare any size."""
    if data.shape[:1] != (count,):
        part = data.name.rpartition("/")[2]
        raise DataError(f"{path}: {name}/{part} has shape {data.shape}, expected {(count, *data.shape[1:])}")
    return np.asarray(data[:])


def _check(path: str, predictions: LabelPredictions) -> None:
    """Raise ``DataError`` unless shapes agree and values are valid."""
    count = len(predictions.ids)
    if not predictions.nodes:
        raise DataError(f"{path}: no nodes")
    if duplicates := _duplicates(predictions.ids):
        raise DataError(f"{path}: duplicate clip {duplicates[0]}")
    for name, node in predictions.nodes.items():
        if name in ("", ".", "ids") or "/" in name:
            raise DataError(f"{path}: {shorten(name)} is not a valid node name")
        if duplicates := _duplicates(node.labels):
            raise DataError(f"{path}: node {name} has the duplicate label {duplicates[0]}")
        shapes = {"log_marginals": (count, len(node.labels)), "map": (count,)}
        for what, shape in shapes.items():
            if (found := getattr(node, what).shape) != shape:
                raise DataError(f"{path}: {name}/{what} has shape {found}, expected {shape}")
        wrong = np.flatnonzero((node.map < 0) | (node.map >= len(node.labels)))
        if len(wrong):
            clip, label = predictions.ids[wrong[0]], node.map[wrong[0]]
            raise DataError(f"{path}: {name}/map of clip {clip} is {label}; it must be 0 to {len(node.labels) - 1}")
        _check_sums(path, predictions.ids, name, node.log_marginals)


def _check_sums(path: str, ids: Sequence[str], name: str, log_marginals: np.ndarray) -> None:
    """Raise ``DataError`` unless the probabilities of each row sum to 1."""
    with np.errstate(over="ignore"):
        total = np.exp(log_marginals).sum(1, dtype=np.float64)
    bad = np.flatnonzero(~(np.abs(total - 1) <= TOLERANCE))
    if not len(bad):
        return
    row = int(bad[0])
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    where = f"{path}: {name}/log_marginals of clip {ids[row]}{more}"
    if np.isnan(log_marginals[row]).any():
        raise DataError(f"{where} holds NaN")
    raise DataError(f"{where}: probabilities sum to {total[row]:.4g}, not 1; write normalized natural logarithms")


def _duplicates(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise DataError(f"{path}: no such label-predictions file; captioner crf predict writes one")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:  # raised by h5py
        check_readable(path, DataError)
        raise DataError(f"{path}: damaged, or not an HDF5 file ({' '.join(str(error).split())})") from error
