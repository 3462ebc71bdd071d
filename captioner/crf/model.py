"""The conditional random field: log potentials from the features of a clip, and its file.

A CRF file is a safetensors file with tensors ``crf.NAME`` and, for each cross-validation model, ``fold.INDEX.NAME``.
All other data are one JSON entry of its header. Opening a file never executes anything.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from captioner.config import choose, from_mapping, within
from captioner.crf.graph import GRAPHS, Edge, all_pairs, has_loops
from captioner.crf.inference import PairwiseMRF
from captioner.errors import CheckpointError, FeatureStoreError
from captioner.features.spec import Store
from captioner.files import atomic_path, not_finite, parse_header, read_tensors
from captioner.provenance import provenance

FORMAT = "captioner-crf"
VERSION = 2
UNARIES = ("linear", "mlp")


@dataclass(frozen=True)
class CRFConfig:
    """Structure of a CRF."""

    graph: str = "complete"
    """Pairs of nodes that have a pairwise factor: complete (all), tree (Chow and Liu 1968) or none."""
    chain: bool = False
    """Whether factors join each node of a clip to the same node of the video's next clip."""
    unary: str = "linear"
    """How unary potentials depend on features: linear, or mlp (one hidden layer, shared by all nodes)."""
    hidden_dim: int = 256
    """Units of the hidden layer of ``mlp``."""
    dropout: float = 0.0
    """Dropout probability of features and hidden units in training."""
    max_joint_states: int = 2**12
    """Largest joint table, in entries, for which a graph with loops is solved exactly; 0: never."""

    def __post_init__(self) -> None:
        choose("graph", self.graph, GRAPHS)
        choose("unary", self.unary, UNARIES)
        within("hidden_dim", self.hidden_dim, 1, 2**14)
        within("dropout", self.dropout, 0, 0.99)
        within("max_joint_states", self.max_joint_states, 0, 2**20)


class CRF(nn.Module):
    """Log potentials of a clip's nodes, from its standardized features by a linear layer or an MLP."""

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self, config: CRFConfig, labels: Mapping[str, Sequence[str]], feature_dim: int, edges: Sequence[Edge]
    ) -> None:
        """``labels`` of each node by its name; ``edges`` are those of ``choose_edges``. All factors start at 0."""
        super().__init__()
        self.config = config
        self.labels = {name: tuple(values) for name, values in labels.items()}
        self.edges = [(v, w) for v, w in edges]
        sizes = self.sizes = [len(values) for values in self.labels.values()]
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_std", torch.ones(feature_dim))
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(feature_dim, config.hidden_dim) if config.unary == "mlp" else None
        self.output = nn.Linear(config.hidden_dim if self.hidden else feature_dim, sum(sizes))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.pairwise = nn.ParameterList(torch.zeros(sizes[v], sizes[w]) for v, w in self.edges)
        self.transition = nn.ParameterList(torch.zeros(size, size) for size in sizes if config.chain)

    @property
    def feature_dim(self) -> int:
        return len(self.feature_mean)

    @property
    def inference(self) -> str:
        """How the likelihood and the marginals are computed: ``exact`` or ``loopy belief propagation``."""
        joint = math.prod(self.sizes) ** (1 + self.config.chain)
        loopy = has_loops(self.edges, self.config.chain) and joint > self.config.max_joint_states
        return "loopy belief propagation" if loopy else "exact"

    def forward(self, features: Tensor, starts_video: Tensor) -> PairwiseMRF:
        """The MRF of clips with ``features`` (N, D); ``starts_video`` (N,) bool marks the first clip of each video."""
        values = self.dropout((features - self.feature_mean) / self.feature_std)
        if self.hidden is not None:
            values = self.dropout(self.hidden(values).relu())
        unary = self.output(values).split(self.sizes, 1)
        pairwise = dict(zip(self.edges, self.pairwise, strict=True))
        return PairwiseMRF(unary, pairwise, tuple(self.transition), starts_video)


@dataclass(frozen=True)
class Fold:
    """A cross-validation model and the training clips that were held out from it."""

    clip_ids: frozenset[str]
    model: CRF


@dataclass(frozen=True)
class FeatureSource:
    """The network that computed the features that a CRF was trained on."""

    key: str
    """Key of the features' spec, such as a backbone's name."""
    dimension: int
    digest: str
    """Digest of the spec."""
    weights_digest: str = ""
    """Digest of the network's weights."""

    @classmethod
    def of(cls, store: Store) -> FeatureSource:
        spec = store.spec
        return cls(spec.key, spec.dimension, spec.digest, store.weights_digest)

    def mismatch(self, other: FeatureSource) -> str:
        """The first field in which ``other`` differs, with both values; empty if they are equal."""
        for name, value in asdict(self).items():
            if value != (theirs := getattr(other, name)):
                return f"{name.replace('_', ' ')} {theirs}, not {value}"
        return ""


@dataclass(frozen=True)
class CRFFile:
    """Contents of a CRF file."""

    model: CRF
    """The model that was trained on all training clips, in evaluation mode."""
    folds: tuple[Fold, ...] = ()
    features: tuple[FeatureSource, ...] = ()
    """The sources of the features, in the order in which they are concatenated."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training configuration and dev scores."""
    provenance: Mapping[str, str] = field(default_factory=dict)

    def check_stores(self, stores: Sequence[Store], name: str) -> None:
        """Raise ``FeatureStoreError`` unless ``stores`` match ``features``; ``name`` is the CRF's in messages."""
        if len(stores) != len(self.features):
            keys = ", ".join(source.key for source in self.features)
            raise FeatureStoreError(
                f"got {len(stores)} feature stores, but {name} was trained on {len(self.features)}: {keys}"
            )
        for store, source in zip(stores, self.features, strict=True):
            if mismatch := source.mismatch(FeatureSource.of(store)):
                raise FeatureStoreError(f"{store.path} has {mismatch} like the features that {name} was trained on")


def save_crf(path: str | Path, crf: CRFFile) -> None:
    """Write a CRF file atomically; ``training`` must be serializable as JSON."""
    model = crf.model
    header = {
        "format": FORMAT,
        "version": VERSION,
        "config": asdict(model.config),
        "labels": model.labels,
        "edges": model.edges,
        "feature_dim": model.feature_dim,
        "inference": model.inference,
        "folds": [{"clip_ids": sorted(fold.clip_ids), "edges": fold.model.edges} for fold in crf.folds],
        "features": [asdict(source) for source in crf.features],
        "training": dict(crf.training),
        "provenance": provenance(),
    }
    models = [("crf", model), *((f"fold.{index}", fold.model) for index, fold in enumerate(crf.folds))]
    tensors = {
        f"{prefix}.{name}": tensor.detach().cpu().contiguous()
        for prefix, one in models
        for name, tensor in one.state_dict().items()
    }
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, {FORMAT: json.dumps(header, ensure_ascii=False)})


def load_crf(path: str | Path) -> CRFFile:
    """Read a CRF file.

    Raises ``CheckpointError`` for a file that is missing, damaged, not a CRF file or of another version.
    """
    path = Path(path)
    tensors, header = _read(path)
    try:
        config = from_mapping(CRFConfig, header["config"], "config")
        labels = {str(name): tuple(map(str, values)) for name, values in header["labels"].items()}

        def build(edges: Any, prefix: str) -> CRF:
            sizes = (config, labels, int(header["feature_dim"]), _edges(edges, len(labels)))
            with torch.device("meta"):  # sizes that a file declares take no memory yet
                _check_shapes(CRF(*sizes), tensors, prefix)
            return _load_state(CRF(*sizes), tensors, prefix)

        return CRFFile(
            build(header["edges"], "crf."),
            tuple(
                Fold(frozenset(fold["clip_ids"]), build(fold["edges"], f"fold.{index}."))
                for index, fold in enumerate(header["folds"])
            ),
            tuple(FeatureSource(**source) for source in header["features"]),
            dict(header["training"]),
            dict(header["provenance"]),
        )
    except Exception as error:  # a header may hold anything, and raise any error
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 400)
        raise CheckpointError(f"{path}: not a valid CRF file: {reason}") from error


def _edges(values: Any, num_nodes: int) -> list[Edge]:
    edges = [(int(v), int(w)) for v, w in values]
    if not set(edges) <= set(all_pairs(num_nodes)):
        raise ValueError(f"edges {edges} between {num_nodes} nodes")
    return edges


def _check_shapes(model: CRF, tensors: Mapping[str, Tensor], prefix: str) -> None:
    for name, wanted in model.state_dict().items():
        found = tensors.get(f"{prefix}{name}")
        if found is None or found.shape != wanted.shape:
            given = "missing" if found is None else tuple(found.shape)
            raise ValueError(f"tensor {prefix}{name} is {given}, not {tuple(wanted.shape)}")


def _load_state(model: CRF, tensors: Mapping[str, Tensor], prefix: str) -> CRF:
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    for name, tensor in model.state_dict().items():
        if name in state and state[name].is_floating_point() != tensor.is_floating_point():
            raise ValueError(f"tensor {prefix}{name} is {state[name].dtype}, not {tensor.dtype}")
    model.load_state_dict(state)
    if bad := not_finite(state):
        raise ValueError(f"tensor {prefix}{bad} holds values that are not finite")
    return model.eval()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a CRF file, and its header."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such CRF file; captioner crf train makes one")
    tensors, entries = read_tensors(path)
    if FORMAT not in entries:
        raise CheckpointError(f"{path}: a safetensors file, but not a CRF of captioner")
    return tensors, parse_header(path, entries[FORMAT], "a CRF", VERSION)
