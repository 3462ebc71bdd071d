"""The conditional random field: features of a clip to log potentials, and the file that keeps it.

A safetensors file with tensors ``crf.NAME`` and, where parts of the training clips were held out in turn,
``fold.INDEX.NAME``. Its header holds one entry of JSON with the rest. Opening one never executes anything.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from captioner.config import choose, from_mapping, within
from captioner.crf.inference import Edge, Field, has_loops
from captioner.errors import CaptionerError, CheckpointError
from captioner.files import atomic_path, read_tensors
from captioner.provenance import provenance

FORMAT = "captioner-crf"
VERSION = 2
GRAPHS = ("complete", "tree", "none")
UNARIES = ("linear", "mlp")


@dataclass(frozen=True)
class CRFConfig:
    """The field: which nodes know of each other, and how features become potentials."""

    graph: str = "complete"
    """complete: every pair of nodes; tree: the pairs that tell most of each other (Chow and Liu 1968); none."""
    chain: bool = False
    """Tables from each node of a clip to the same node of the video's next clip."""
    unary: str = "linear"
    """linear, or mlp: one hidden layer that all nodes share."""
    hidden: int = 256
    """Units of the hidden layer, where there is one."""
    dropout: float = 0.0
    """Probability of dropping a feature, and a hidden unit, in training."""
    exact_states: int = 2**12
    """A graph with loops is solved exactly while the table that this takes has no more entries; 0: never."""

    def __post_init__(self) -> None:
        choose("graph", self.graph, GRAPHS)
        choose("unary", self.unary, UNARIES)
        within("hidden", self.hidden, 1)
        within("dropout", self.dropout, 0, 0.99)
        within("exact_states", self.exact_states, 0)


class CRF(nn.Module):
    """Log potentials of the nodes of a clip, linear in (or by an MLP from) its standardized features."""

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self, config: CRFConfig, labels: Mapping[str, Sequence[str]], feature_size: int, edges: Sequence[Edge]
    ) -> None:
        """``edges`` are those of ``config.graph``; all potentials but the MLP's first layer begin at 0."""
        super().__init__()
        self.config = config
        self.labels = {name: tuple(values) for name, values in labels.items()}
        self.edges = [(v, w) for v, w in edges]
        sizes = self.sizes = [len(values) for values in self.labels.values()]
        self.register_buffer("feature_mean", torch.zeros(feature_size))
        self.register_buffer("feature_std", torch.ones(feature_size))
        self.drop = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(feature_size, config.hidden) if config.unary == "mlp" else None
        self.output = nn.Linear(config.hidden if self.hidden else feature_size, sum(sizes))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.pairwise = nn.ParameterList(torch.zeros(sizes[v], sizes[w]) for v, w in self.edges)
        self.transition = nn.ParameterList(torch.zeros(size, size) for size in sizes if config.chain)

    @property
    def feature_size(self) -> int:
        return len(self.feature_mean)

    @property
    def method(self) -> str:
        """How likelihood and marginals are worked out: ``exact`` or ``loopy belief propagation``."""
        joint = 1
        for size in self.sizes:
            joint *= size ** (1 + self.config.chain)
        loopy = has_loops(self.edges, self.config.chain) and joint > self.config.exact_states
        return "loopy belief propagation" if loopy else "exact"

    def forward(self, features: Tensor, first: Tensor) -> Field:
        """The field of clips with ``features`` (N, D); ``first`` (N,) bool is true where a video begins."""
        values = self.drop((features - self.feature_mean) / self.feature_std)
        if self.hidden is not None:
            values = self.drop(self.hidden(values).relu())
        unary = self.output(values).split(self.sizes, 1)
        return Field(unary, dict(zip(self.edges, self.pairwise, strict=True)), tuple(self.transition), first)


def all_pairs(nodes: int) -> list[Edge]:
    """Every pair of nodes."""
    return list(itertools.combinations(range(nodes), 2))


@dataclass(frozen=True)
class CRFFile:
    """What a CRF file holds."""

    model: CRF
    """Trained on all training clips; for evaluation."""
    folds: tuple[tuple[frozenset[str], CRF], ...] = ()
    """Ids of held-out clips, and the model that was trained without them."""
    features: tuple[Mapping[str, Any], ...] = ()
    """What made the features, concatenated in this order: attributes of their stores."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained and what it reached."""
    provenance: Mapping[str, str] = field(default_factory=dict)


def save_crf(path: str | Path, crf: CRFFile) -> None:
    """Write a CRF file, whole or not at all; ``features`` and ``training`` must be fit for JSON."""
    model = crf.model
    header = {
        "format": FORMAT,
        "version": VERSION,
        "config": asdict(model.config),
        "labels": model.labels,
        "edges": model.edges,
        "feature_size": model.feature_size,
        "method": model.method,
        "folds": [{"held_out": sorted(ids), "edges": one.edges} for ids, one in crf.folds],
        "features": list(crf.features),
        "training": dict(crf.training),
        "provenance": provenance(),
    }
    named = [("crf", model), *((f"fold.{index}", one) for index, (_, one) in enumerate(crf.folds))]
    tensors = {
        f"{prefix}.{name}": tensor.detach().cpu().contiguous()
        for prefix, one in named
        for name, tensor in one.state_dict().items()
    }
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, {FORMAT: json.dumps(header, ensure_ascii=False)})


def load_crf(path: str | Path) -> CRFFile:
    """Read a CRF file. Raises ``CheckpointError`` for one that is missing, damaged, another's or of another version."""
    path = Path(path)
    tensors, header = _read(path)
    try:
        config = from_mapping(CRFConfig, header["config"], "config")
        labels = {str(name): tuple(map(str, values)) for name, values in header["labels"].items()}
        size = int(header["feature_size"])
        model = _filled(CRF(config, labels, size, _edges(header["edges"], len(labels))), tensors, "crf.")
        folds = tuple(
            (
                frozenset(fold["held_out"]),
                _filled(CRF(config, labels, size, _edges(fold["edges"], len(labels))), tensors, f"fold.{index}."),
            )
            for index, fold in enumerate(header["folds"])
        )
        facts = tuple(header["features"]), dict(header["training"]), dict(header["provenance"])
    except (CaptionerError, KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: not as a CRF file should be: {type(error).__name__}: {reason}") from error
    return CRFFile(model, folds, *facts)


def _edges(values: Any, nodes: int) -> list[Edge]:
    edges = [(int(v), int(w)) for v, w in values]
    if not set(edges) <= set(all_pairs(nodes)):
        raise ValueError(f"edges {edges} between {nodes} nodes")
    return edges


def _filled(model: CRF, tensors: Mapping[str, Tensor], prefix: str) -> CRF:
    own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    model.load_state_dict(own)
    bad = [name for name, tensor in own.items() if not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"tensor {prefix}{bad[0]} holds values that are not finite")
    return model.eval()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a CRF file, and its header."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such CRF file; captioner crf train makes one")
    tensors, entries = read_tensors(path)
    if FORMAT not in entries:
        raise CheckpointError(f"{path}: a safetensors file, but not a CRF of captioner")
    try:
        header = json.loads(entries[FORMAT])
        version = header["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error})") from error
    if version != VERSION:
        raise CheckpointError(f"{path}: a CRF of version {version}; this captioner reads version {VERSION}")
    return tensors, header
