"""Learning a CRF by maximum likelihood, and predicting with it.

The likelihood of a clip is that of its known labels; labels that nobody gave are summed over. Where the graph has loops
and its joint table is too large, both sums are Bethe's approximation (``CRF.method`` says which it is).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captioner.config import within
from captioner.crf.inference import Best, Edge, best, log_partition, marginals
from captioner.crf.model import CRF, CRFConfig, CRFFile, all_pairs
from captioner.crf.predictions import Assessment, NodePotentials, Potentials, assess
from captioner.errors import DataError

PREDICT_CLIPS = 256  # in one batch
SMOOTHING = 0.5  # added to the count of each label, and of all pairs of two nodes together


@dataclass(frozen=True)
class LearnConfig:
    """How a CRF is trained."""

    epochs: int = 60
    """At most so many times over the training clips; the best on dev is kept."""
    patience: int = 5
    """Stop after so many epochs without a better dev log probability; without dev clips all epochs are run."""
    batch_size: int = 256
    """Clips in a step; with a chain whole videos, until there are so many clips."""
    lr: float = 1e-2
    """Adam's step size."""
    weight_decay: float = 10.0
    """Gaussian prior: half of this, over the number of training clips, times the sum of squared weights, in nats."""
    table_decay: float = 1.0
    """The same for the tables between nodes and clips."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            within(name, getattr(self, name), 1)
        within("lr", self.lr, 1e-9)
        within("weight_decay", self.weight_decay, 0)


@dataclass(frozen=True, eq=False)
class Clips:
    """N clips as arrays; clips of a video follow one another in time."""

    ids: list[str]
    videos: list[str]
    """The video of each clip."""
    features: np.ndarray
    """(N, D) float32."""
    truth: np.ndarray
    """(N, V) int64: index of each node's true label, -1 where unknown."""

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: np.ndarray) -> Clips:
        """The clips at ``rows`` (M,), in that order."""
        ids, videos = ([values[row] for row in rows] for values in (self.ids, self.videos))
        return Clips(ids, videos, self.features[rows], self.truth[rows])

    @property
    def first(self) -> np.ndarray:
        """(N,) bool: another video begins here."""
        return np.array([row == 0 or name != self.videos[row - 1] for row, name in enumerate(self.videos)], bool)

    @property
    def known(self) -> np.ndarray:
        """(N,) bool: at least one label is known."""
        return np.asarray((self.truth >= 0).any(1))


@dataclass(frozen=True)
class Epoch:
    """What there is to say after an epoch."""

    number: int
    log_likelihood: float
    """Mean over the training clips, in nats a clip, with dropout and while the weights moved; Bethe's if not exact."""
    dev: Assessment | None
    """Of the most probable label of each node."""
    unsettled: int
    """Dev clips whose messages did not converge."""


Progress = Callable[[Epoch], None]


def learn(
    config: CRFConfig,
    how: LearnConfig,
    labels: Mapping[str, Sequence[str]],
    train: Clips,
    dev: Clips | None = None,
    progress: Progress | None = None,
) -> CRF:
    """Train on clips with known labels; returns the model of the best dev log probability, for evaluation.

    Raises ``DataError`` where there is nothing to learn from.
    """
    train = train if config.chain else train.select(np.flatnonzero(train.known))
    if not train.known.any():
        raise DataError("no training clip has a label that the label sets know; nothing to learn from")
    model = CRF(config, labels, train.features.shape[1], choose_edges(config.graph, train.truth, labels))
    _initialize(model, train, how.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=how.lr)
    random = np.random.default_rng(how.seed)
    kept, best_log_prob, since = model.state_dict(), -np.inf, 0
    with torch.random.fork_rng(devices=[]):  # dropout is drawn from the seed; the caller's random state stays
        torch.manual_seed(how.seed)
        for number in range(1, how.epochs + 1):
            log_likelihood = _epoch(model, optimizer, train, how, random)
            epoch = Epoch(number, log_likelihood, *_judge(model, dev))
            if progress:
                progress(epoch)
            if epoch.dev is None:
                continue
            since += 1
            if epoch.dev.log_prob > best_log_prob:
                kept = {name: value.clone() for name, value in model.state_dict().items()}
                best_log_prob, since = epoch.dev.log_prob, 0
            if since >= how.patience:
                break
    model.load_state_dict(kept)
    return model.eval()


def learn_with_folds(
    config: CRFConfig,
    how: LearnConfig,
    labels: Mapping[str, Sequence[str]],
    train: Clips,
    dev: Clips | None = None,
    folds: int = 0,
    progress: Callable[[str, Epoch], None] = lambda part, epoch: None,
) -> CRFFile:
    """A model of all training clips and, with ``folds``, one without each fold's videos, for predicting those.

    A CRF is surer of clips that it learned from than of others. Who learns from its potentials of training clips needs
    such as it will meet later: those of a model that has not seen them. ``progress`` is told which part it is.
    """
    model = learn(config, how, labels, train, dev, lambda epoch: progress("all", epoch))
    parts = []
    for number, rows in enumerate(held_out(train.videos, folds, how.seed) if folds else [], start=1):
        rest = train.select(np.setdiff1d(np.arange(len(train)), rows))
        name = f"fold {number}/{folds}"
        other = learn(config, how, labels, rest, dev, lambda epoch, name=name: progress(name, epoch))  # type: ignore[misc]
        parts.append((frozenset(train.ids[row] for row in rows), other))
    return CRFFile(model, tuple(parts))


def held_out(videos: Sequence[str], folds: int, seed: int) -> list[np.ndarray]:
    """Rows of the clips that each fold leaves out, whole videos, drawn by ``seed``."""
    names = sorted(set(videos))
    if not 2 <= folds <= len(names):
        raise DataError(f"{folds} folds of {len(names)} training videos; give 2 to {len(names)}")
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[place]: number % folds for number, place in enumerate(order)}
    return [np.flatnonzero([fold_of[video] == fold for video in videos]) for fold in range(folds)]


def choose_edges(graph: str, truth: np.ndarray, labels: Mapping[str, Sequence[str]]) -> list[Edge]:
    """The edges of a kind of graph; of a tree those of greatest mutual information in ``truth`` (N, V)."""
    pairs = all_pairs(len(labels))
    if graph != "tree":
        return pairs if graph == "complete" else []
    sizes = [len(values) for values in labels.values()]
    told = {(v, w): mutual_information(truth[:, v], truth[:, w], sizes[v], sizes[w]) for v, w in pairs}
    part = list(range(len(sizes)))  # Kruskal's algorithm: nodes of a part are joined already
    edges = []
    for v, w in sorted(pairs, key=lambda edge: -told[edge]):
        if part[v] != part[w]:
            edges.append((v, w))
            part = [part[v] if one == part[w] else one for one in part]
    return sorted(edges)


def mutual_information(one: np.ndarray, other: np.ndarray, size: int, other_size: int) -> float:
    """Of two labels (N,), in nats, where both are known, with smoothed counts."""
    both = (one >= 0) & (other >= 0)
    counts = np.full((size, other_size), SMOOTHING / (size * other_size))
    np.add.at(counts, (one[both], other[both]), 1)
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((joint * np.log(joint / apart)).sum())


@dataclass(frozen=True)
class Unsettled:
    """Clips whose messages still changed when the iterations ended; always 0 where inference is exact."""

    marginals: int
    best: int


def predict(crf: CRFFile | CRF, clips: Clips, source: str = "", *, decode: bool = True) -> tuple[Potentials, Unsettled]:
    """Potentials of all clips. A clip that a fold held out in training gets those of that fold's model.

    Without ``decode`` each node's most probable label stands for the best assignment, which is quicker.
    """
    file = CRFFile(crf) if isinstance(crf, CRF) else crf
    if clips.features.shape[1] != file.model.feature_size:
        wanted = f"the CRF was trained on {file.model.feature_size}"
        raise DataError(f"features of {clips.features.shape[1]} numbers, {wanted}; give the same feature stores")
    fold_of = {name: number for number, (ids, _) in enumerate(file.folds) for name in ids}
    owner = np.array([fold_of.get(name, -1) for name in clips.ids], np.int64)
    sizes = file.model.sizes
    log_prob = [np.empty((len(clips), size), np.float32) for size in sizes]
    labels = np.empty((len(clips), len(sizes)), np.int64)
    unsettled = np.zeros((len(clips), 2), bool)
    for number, model in enumerate([file.model, *(one for _, one in file.folds)], start=-1):
        for rows in _batches(clips, np.flatnonzero(owner == number), PREDICT_CLIPS, model.config.chain):
            found, assignment, unsettled[rows] = _infer(model, clips.select(rows), decode)
            labels[rows] = assignment
            for v, one in enumerate(found):
                log_prob[v][rows] = one
    nodes = {
        name: NodePotentials(values, log_prob[v], labels[:, v])
        for v, (name, values) in enumerate(file.model.labels.items())
    }
    return Potentials(list(clips.ids), nodes, source), Unsettled(*map(int, unsettled.sum(0)))


def _infer(model: CRF, clips: Clips, decode: bool) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Log marginals a node, the best assignment (N, V), and (N, 2) bool what did not converge, of one batch."""
    states = model.config.exact_states
    with torch.inference_mode():
        field = model(torch.from_numpy(clips.features), torch.from_numpy(clips.first))
        found = marginals(field, states)
        guess = torch.stack([one.argmax(1) for one in found.log_prob], 1)
        top = best(field, states, guess=guess) if decode else Best(guess, found.converged)
    unsettled = ~torch.stack([found.converged, top.converged], 1).numpy()
    return [one.numpy() for one in found.log_prob], top.labels.numpy(), unsettled


def _judge(model: CRF, dev: Clips | None) -> tuple[Assessment | None, int]:
    if dev is None or not dev.known.any():
        return None, 0
    potentials, unsettled = predict(model.eval(), dev, decode=False)
    return assess(potentials, dev.truth), unsettled.marginals


def _initialize(model: CRF, train: Clips, seed: int) -> None:
    """Standardize the features, begin at the frequencies of the labels, and draw the MLP's first layer."""
    spread = train.features.std(0)
    frequencies = [
        np.bincount(labels[labels >= 0], minlength=size) + SMOOTHING
        for labels, size in zip(train.truth.T, model.sizes, strict=True)
    ]
    with torch.no_grad():
        model.feature_mean.copy_(torch.from_numpy(train.features.mean(0)))
        model.feature_std.copy_(torch.from_numpy(np.where(spread > 1e-6, spread, 1.0)))
        model.output.bias.copy_(torch.from_numpy(np.concatenate([np.log(one / one.sum()) for one in frequencies])))
    if model.hidden is not None:
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.kaiming_uniform_(model.hidden.weight, nonlinearity="relu", generator=generator)
        torch.nn.init.zeros_(model.hidden.bias)
        torch.nn.init.normal_(model.output.weight, std=0.01, generator=generator)


def _epoch(
    model: CRF, optimizer: torch.optim.Optimizer, train: Clips, how: LearnConfig, random: np.random.Generator
) -> float:
    """One pass over the training clips; returns the mean log likelihood, without the prior, in nats a clip."""
    model.train()
    tables = [*model.pairwise, *model.transition]
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    priors = [(how.weight_decay, one) for one in weights] + [(how.table_decay, one) for one in tables]
    count, total = int(train.known.sum()), 0.0
    for rows in _batches(train, np.arange(len(train)), how.batch_size, model.config.chain, random):
        clips = train.select(rows)
        log_likelihood = conditional_log_likelihood(model, clips)
        prior = sum(decay * matrix.square().sum() for decay, matrix in priors)
        loss = -log_likelihood / max(1, int(clips.known.sum())) + 0.5 / count * prior
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(log_likelihood.detach())
    return total / count


def conditional_log_likelihood(model: CRF, clips: Clips) -> Tensor:
    """Log probability of the known labels given the features, unknown ones summed over: (), in nats, over all clips."""
    field = model(torch.from_numpy(clips.features), torch.from_numpy(clips.first))
    truth, states = torch.from_numpy(clips.truth), model.config.exact_states
    if bool((truth >= 0).all()):
        known: Tensor = field.score(truth).sum()
    else:
        allowed = tuple(
            (truth[:, v, None] < 0) | (truth[:, v, None] == torch.arange(size)) for v, size in enumerate(field.sizes)
        )
        known = log_partition(field, allowed, states)
    return known - log_partition(field, None, states)


def _batches(
    clips: Clips, rows: np.ndarray, size: int, chain: bool, random: np.random.Generator | None = None
) -> Iterator[np.ndarray]:
    """``rows`` in batches of about ``size``; with ``chain`` whole videos, one always. Shuffled with ``random``."""
    if not chain:
        rows = rows if random is None else random.permutation(rows)
        yield from (rows[start : start + size] for start in range(0, len(rows), size))
        return
    starts = np.flatnonzero(clips.select(rows).first)
    videos = [one for one in np.split(rows, starts) if len(one)]
    order = np.arange(len(videos)) if random is None else random.permutation(len(videos))
    batch: list[np.ndarray] = []
    for place in order:
        batch.append(videos[place])
        if sum(map(len, batch)) >= size:
            yield np.concatenate(batch)
            batch = []
    if batch:
        yield np.concatenate(batch)
