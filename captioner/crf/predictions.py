"""The potentials file: what is believed about the labels of each clip, whoever worked it out (docs/potentials.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from captioner.errors import DataError
from captioner.files import atomic_path
from captioner.provenance import provenance

FORMAT = "captioner-potentials"
VERSION = 1
NULL = "-"
"""Label of a node that has nothing to say about a clip."""
KINDS = ("max", "prob")
TOLERANCE = 1e-3
"""How far the probabilities of a node may be from a sum of 1."""
BINS = 15  # of the calibration error, as in Guo et al. 2017


@dataclass(frozen=True, eq=False)
class NodePotentials:
    """One node of N clips."""

    labels: tuple[str, ...]
    """The L labels."""
    log_prob: np.ndarray
    """(N, L) float32, log marginals in nats; each row's probabilities sum to 1. Minus infinity is probability 0."""
    best: np.ndarray
    """(N,) int64: the node's label in the clip's jointly best assignment."""


@dataclass(frozen=True, eq=False)
class Potentials:
    """All nodes of N clips."""

    ids: list[str]
    """The N clips, each once."""
    nodes: dict[str, NodePotentials]
    """By name, in the order in which vectors and words have them."""
    source: str = ""
    """What made them, in words; every program that reads the file may show it."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """Each node's labels."""
        return {name: node.labels for name, node in self.nodes.items()}

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each clip id."""
        return {name: row for row, name in enumerate(self.ids)}

    def select(self, ids: Sequence[str]) -> np.ndarray:
        """Rows (M,) int64 of ``ids``; raises ``DataError`` naming those that are not there."""
        missing = [name for name in ids if name not in self.rows]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise DataError(f"no potentials of {', '.join(missing[:3])}{more}; predict these clips too")
        return np.array([self.rows[name] for name in ids], np.int64)

    def subset(self, ids: Sequence[str]) -> Potentials:
        """The potentials of ``ids``, in that order; raises as ``select``."""
        rows = self.select(ids)
        nodes = {
            name: NodePotentials(node.labels, node.log_prob[rows], node.best[rows]) for name, node in self.nodes.items()
        }
        return Potentials(list(ids), nodes, self.source)

    def vector(self, kind: str) -> np.ndarray:
        """(N, sum of L) float32, nodes concatenated: ``max`` one-hot best assignment, ``prob`` probabilities."""
        if kind not in KINDS:
            raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
        if kind == "prob":
            return np.concatenate([np.exp(node.log_prob) for node in self.nodes.values()], 1, dtype=np.float32)
        one_hot = (np.eye(len(node.labels), dtype=np.float32)[node.best] for node in self.nodes.values())
        return np.concatenate(list(one_hot), 1)

    def tuple_of(self, row: int) -> tuple[str, ...]:
        """The best assignment of a clip, one label a node."""
        return tuple(node.labels[node.best[row]] for node in self.nodes.values())

    def words(self, row: int) -> list[str]:
        """The words of the best assignment, node after node: ``take out`` is two, ``-`` none."""
        return [word for label in self.tuple_of(row) if label != NULL for word in label.split()]

    def check_labels(self, labels: Mapping[str, Sequence[str]], name: str = "the model") -> None:
        """Raise ``DataError`` unless nodes and labels are ``labels``, in that order, naming what differs."""
        if list(self.nodes) != list(labels):
            raise DataError(f"nodes {', '.join(self.nodes)}; {name} has {', '.join(labels)}")
        for node, wanted in labels.items():
            mine = self.nodes[node].labels
            if list(mine) != list(wanted):
                odd = [one for one in mine if one not in wanted] or [one for one in wanted if one not in mine]
                what = f"{odd[0]!r} is in one only" if odd else "their order differs"
                raise DataError(
                    f"other labels: node {node} has {len(mine)}, {name} has {len(wanted)} ({what}); "
                    "predict again with the same CRF, or train on these potentials"
                )


def with_truth(potentials: Potentials, truth: np.ndarray, share: float) -> Potentials:
    """Potentials with ``share`` of the true labels (N, V) int64 mixed into the probabilities, -1 being unknown.

    Where a label is known, it is that of the best assignment too. For training describers: which label it is agrees
    with the sentences, and how sure one may be with what is read later.
    """
    nodes = {}
    for v, (name, node) in enumerate(potentials.nodes.items()):
        [rows] = np.nonzero(truth[:, v] >= 0)
        log_prob, best = node.log_prob.copy(), node.best.copy()
        prob = (1 - share) * np.exp(log_prob[rows])
        prob[np.arange(len(rows)), truth[rows, v]] += share
        with np.errstate(divide="ignore"):
            log_prob[rows] = np.log(prob)
        best[rows] = truth[rows, v]
        nodes[name] = NodePotentials(node.labels, log_prob, best)
    return Potentials(potentials.ids, nodes, f"{potentials.source}, {share:g} of the true labels in training clips")


@dataclass(frozen=True)
class Assessment:
    """How good potentials are; shares in 0..1, over the clips whose label is known."""

    accuracy: dict[str, float]
    """Of each node's label in the best assignment; nan where no label is known."""
    joint: float
    """Share of clips whose known labels are all right."""
    log_prob: float
    """Mean log marginal of a true label, in nats; one that has no probability counts as float32's least."""
    calibration: dict[str, float]
    """Expected calibration error of each node's most probable label (Guo et al. 2017, equation 3, 15 bins)."""
    clips: int
    """Clips with at least one known label."""

    @property
    def mean(self) -> float:
        """Accuracy, averaged over the nodes."""
        return float(np.nanmean(list(self.accuracy.values()))) if self.clips else float("nan")

    def __str__(self) -> str:
        nodes = "  ".join(f"{name} {share:.1%}" for name, share in self.accuracy.items())
        error = float(np.nanmean(list(self.calibration.values()))) if self.clips else float("nan")
        return f"{nodes}  mean {self.mean:.1%}  joint {self.joint:.1%}  ECE {error:.3f}"


def assess(potentials: Potentials, truth: np.ndarray) -> Assessment:
    """Compare with the true labels (N, V) int64, -1 where unknown."""
    known = truth >= 0
    right = np.stack([node.best for node in potentials.nodes.values()], 1) == truth
    accuracy, calibration, logs = {}, {}, []
    for v, (name, node) in enumerate(potentials.nodes.items()):
        here = known[:, v]
        labels, log_prob = truth[here, v], node.log_prob[here]
        accuracy[name] = float(right[here, v].mean()) if here.any() else float("nan")
        calibration[name] = calibration_error(log_prob, labels)
        logs.append(np.maximum(log_prob[np.arange(len(labels)), labels], np.log(np.finfo(np.float32).tiny)))
    clips = known.any(1)
    joint = float((right | ~known)[clips].all(1).mean()) if clips.any() else float("nan")
    log = float(np.concatenate(logs).mean()) if clips.any() else float("nan")
    return Assessment(accuracy, joint, log, calibration, int(clips.sum()))


def calibration_error(log_prob: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over bins of confidence, by their share.

    ``log_prob`` (N, L) in nats, ``labels`` (N,) int64; nan without rows.
    """
    if not len(labels):
        return float("nan")
    confidence = np.exp(log_prob.max(1))
    right = log_prob.argmax(1) == labels
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, right.astype(np.float64) - confidence, bins)
    return float(np.abs(gaps).sum() / len(labels))


def write_potentials(path: str | Path, potentials: Potentials) -> None:
    """Write a potentials file, whole or not at all; raises ``DataError`` for what ``read_potentials`` would refuse."""
    _check(str(path), potentials)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "source": potentials.source})
        file.attrs["nodes"] = list(potentials.nodes)
        file.attrs["provenance"] = json.dumps(provenance())
        file["ids"] = np.array(potentials.ids, h5py.string_dtype())
        for name, node in potentials.nodes.items():
            file[f"{name}/labels"] = np.array(node.labels, h5py.string_dtype())
            file[f"{name}/log_prob"] = node.log_prob.astype(np.float32)
            file[f"{name}/best"] = node.best.astype(np.int64)


def read_potentials(path: str | Path) -> Potentials:
    """Read a potentials file, ours or anybody's.

    A file without a node's ``best`` gets its most probable labels. Raises ``DataError`` for what is no potentials file
    of this version, for a wrong shape or label, for NaN, and for probabilities that do not sum to 1, naming the clip.
    """
    with _opened(Path(path)) as file:
        attributes = dict(file.attrs)
        if attributes.get("format") != FORMAT:
            raise DataError(f"{path}: an HDF5 file, but not of potentials (docs/potentials.md says how to write one)")
        if attributes.get("version") != VERSION:
            raise DataError(
                f"{path}: potentials of version {attributes.get('version')}; this captioner reads {VERSION}"
            )
        for name in ("nodes", "ids"):
            if name not in (file.attrs if name == "nodes" else file):
                raise DataError(f"{path}: lacks {name!r} (docs/potentials.md lists what a potentials file holds)")
        names = [_text(name) for name in np.atleast_1d(attributes["nodes"])]
        nodes = {name: _read_node(path, file, name) for name in names}
        if len(nodes) != len(names):
            raise DataError(f"{path}: a node is named twice: {', '.join(names)}")
        ids = [_text(name) for name in file["ids"][:]]
        potentials = Potentials(ids, nodes, _text(attributes.get("source", "")))
    _check(str(path), potentials)
    return potentials


def _read_node(path: str | Path, file: h5py.File, name: str) -> NodePotentials:
    """One node's group, before its values are checked."""
    for part in ("labels", "log_prob"):
        if f"{name}/{part}" not in file:
            raise DataError(f"{path}: lacks {name}/{part} (docs/potentials.md lists what a potentials file holds)")
    group = file[name]
    labels = tuple(_text(label) for label in group["labels"][:])
    log_prob = np.asarray(group["log_prob"][:], np.float32)
    if log_prob.ndim != 2 or log_prob.shape[1] != len(labels) or not labels:
        raise DataError(f"{path}: {name}/log_prob has shape {log_prob.shape}, its labels are {len(labels)}")
    if "best" not in group:
        return NodePotentials(labels, log_prob, log_prob.argmax(1))
    best = np.asarray(group["best"][:])
    if best.dtype.kind not in "iu":
        raise DataError(f"{path}: {name}/best holds {best.dtype}; it should hold whole numbers, indices of labels")
    return NodePotentials(labels, log_prob, best.astype(np.int64))


def _check(path: str, potentials: Potentials) -> None:
    """Raise ``DataError`` unless shapes agree and values are what they should be."""
    count = len(potentials.ids)
    if not potentials.nodes:
        raise DataError(f"{path}: no nodes")
    if len(set(potentials.ids)) != count:
        raise DataError(f"{path}: a clip is there twice: {_first_twice(potentials.ids)}")
    for name, node in potentials.nodes.items():
        if len(set(node.labels)) != len(node.labels):
            raise DataError(f"{path}: node {name} has a label twice: {_first_twice(node.labels)}")
        for what, array, shape in (
            ("log_prob", node.log_prob, (count, len(node.labels))),
            ("best", node.best, (count,)),
        ):
            if array.shape != shape:
                raise DataError(f"{path}: {name}/{what} has shape {array.shape}, expected {shape}")
        if count and not 0 <= node.best.min() <= node.best.max() < len(node.labels):
            odd = int(np.flatnonzero((node.best < 0) | (node.best >= len(node.labels)))[0])
            label = f"{node.best[odd]} of {len(node.labels)}"
            raise DataError(f"{path}: {name}/best of clip {potentials.ids[odd]} is label {label}; they count from 0")
        _check_sums(path, potentials.ids, name, node.log_prob)


def _check_sums(path: str, ids: Sequence[str], name: str, log_prob: np.ndarray) -> None:
    """Raise ``DataError`` unless each row's probabilities sum to 1."""
    with np.errstate(over="ignore"):
        total = np.exp(log_prob).sum(1, dtype=np.float64)
    bad = np.flatnonzero(~(np.abs(total - 1) <= TOLERANCE))
    if len(bad):
        row = int(bad[0])
        where = f"{path}: {name}/log_prob of clip {ids[row]}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else "")
        if np.isnan(log_prob[row]).any():
            raise DataError(f"{where} holds NaN; repair it where it was made")
        raise DataError(f"{where}: probabilities sum to {total[row]:.4g}, not 1; write normalized natural logarithms")


def _first_twice(names: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise DataError(f"{path}: no such potentials file; captioner crf predict writes one")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:  # of h5py
        raise DataError(f"{path}: damaged, or not an HDF5 file ({' '.join(str(error).split())})") from error
