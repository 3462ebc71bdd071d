"""Training a CRF by maximum conditional likelihood.

The likelihood of a clip is that of its known gold labels, summed over the unknown ones. If the graph has loops and its
joint table is too large, the partition functions are Bethe approximations (``CRF.inference`` says which is used).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captioner.config import within
from captioner.crf.clips import ClipArrays, LabelSets, group_folds
from captioner.crf.graph import SMOOTHING, choose_edges
from captioner.crf.inference import log_partition
from captioner.crf.model import CRF, CRFConfig, CRFFile, Fold
from captioner.crf.predictions import Evaluation, evaluate
from captioner.crf.predictor import predict
from captioner.errors import DataError


@dataclass(frozen=True)
class CRFTrainConfig:
    """Optimization of a CRF."""

    epochs: int = 60
    """Maximum number of passes over the training clips; the epoch with the best dev score is kept."""
    patience: int = 5
    """Stop after this many epochs without a better dev log probability; without dev clips all epochs run."""
    batch_size: int = 256
    """Clips in a step; with a chain, whole videos are added until there are this many."""
    lr: float = 1e-2
    """Adam's learning rate."""
    weight_decay: float = 10.0
    """Precision of the Gaussian prior on the linear weights. It adds to the loss (nats per clip) half the precision
    times the squared norm, divided by the number of training clips."""
    factor_decay: float = 1.0
    """The same for the pairwise and transition factors."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience"):
            within(name, getattr(self, name), 1)
        within("batch_size", self.batch_size, 1, 2**16)
        within("lr", self.lr, 1e-9)
        within("seed", self.seed, 0, 2**63 - 1)
        for name in ("weight_decay", "factor_decay"):
            within(name, getattr(self, name), 0)


@dataclass(frozen=True)
class Epoch:
    """Scores of one epoch."""

    number: int
    log_likelihood: float
    """Mean log likelihood over the training clips, in nats per clip, measured while training (with dropout)."""
    dev: Evaluation | None
    """Scores on the dev clips; None without labeled ones."""
    not_converged: int
    """Dev clips whose messages did not converge."""


def train_crf(
    config: CRFConfig,
    train_config: CRFTrainConfig,
    labels: LabelSets,
    train: ClipArrays,
    dev: ClipArrays | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> CRF:
    """Train on labeled clips; returns the model of the epoch with the best dev log probability, in evaluation mode.

    Raises ``DataError`` if no training clip has a gold label.
    """
    train = train if config.chain else train.select(np.flatnonzero(train.labeled))
    if not train.labeled.any():
        raise DataError("no training clip has a label of the label sets")
    model = CRF(config, labels, train.features.shape[1], choose_edges(config.graph, train.gold, labels))
    _initialize(model, train, train_config.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=train_config.lr)
    random = np.random.default_rng(train_config.seed)
    best_state, best_log_prob, epochs_since = model.state_dict(), -np.inf, 0
    with torch.random.fork_rng(devices=[]):  # dropout uses the seed; the caller's random state is restored
        torch.manual_seed(train_config.seed)
        for number in range(1, train_config.epochs + 1):
            log_likelihood = _train_epoch(model, optimizer, train, train_config, random)
            epoch = Epoch(number, log_likelihood, *_evaluate_dev(model, dev))
            if progress:
                progress(epoch)
            if epoch.dev is None:
                continue
            epochs_since += 1
            if epoch.dev.log_prob > best_log_prob:
                best_state = {name: value.clone() for name, value in model.state_dict().items()}
                best_log_prob, epochs_since = epoch.dev.log_prob, 0
            if epochs_since >= train_config.patience:
                break
    model.load_state_dict(best_state)
    return model.eval()


def train_with_folds(
    config: CRFConfig,
    train_config: CRFTrainConfig,
    labels: LabelSets,
    train: ClipArrays,
    dev: ClipArrays | None = None,
    folds: int = 0,
    progress: Callable[[str, Epoch], None] = lambda name, epoch: None,
) -> CRFFile:
    """A model of all training clips and ``folds`` cross-validation models, split by video.

    A CRF is more confident on clips that it was trained on. A model that is trained on its predictions needs
    out-of-fold predictions of the training clips, which are as uncertain as those of new clips. ``progress`` is called
    with the name of the model that is being trained, ``all`` or ``fold 1/5``, and the epoch.
    """
    model = train_crf(config, train_config, labels, train, dev, lambda epoch: progress("all", epoch))
    trained = []
    for number, rows in enumerate(group_folds(train.videos, folds, train_config.seed) if folds else [], start=1):
        rest = train.select(np.setdiff1d(np.arange(len(train)), rows))

        def report(epoch: Epoch, name: str = f"fold {number}/{folds}") -> None:
            progress(name, epoch)

        fold = train_crf(config, train_config, labels, rest, dev, report)
        trained.append(Fold(frozenset(train.ids[row] for row in rows), fold))
    return CRFFile(model, tuple(trained))


def conditional_log_likelihood(model: CRF, clips: ClipArrays) -> Tensor:
    """Log probability of the known gold labels given the features, summed over all clips: (), in nats."""
    mrf = model(torch.from_numpy(clips.features), torch.from_numpy(clips.starts_video))
    gold, states = torch.from_numpy(clips.gold), model.config.max_joint_states
    if bool((gold >= 0).all()):
        known: Tensor = mrf.score(gold).sum()
    else:
        allowed = tuple(
            (gold[:, v, None] < 0) | (gold[:, v, None] == torch.arange(size)) for v, size in enumerate(mrf.sizes)
        )
        known = log_partition(mrf, allowed, states)
    return known - log_partition(mrf, None, states)


def _evaluate_dev(model: CRF, dev: ClipArrays | None) -> tuple[Evaluation | None, int]:
    if dev is None or not dev.labeled.any():
        return None, 0
    predictions, not_converged = predict(model.eval(), dev, decode=False)
    return evaluate(predictions, dev.gold), not_converged.marginals


def _initialize(model: CRF, train: ClipArrays, seed: int) -> None:
    """Standardize the features, set the biases to the label frequencies, and initialize the MLP."""
    std = train.features.std(0)
    frequencies = [
        np.bincount(gold[gold >= 0], minlength=size) + SMOOTHING
        for gold, size in zip(train.gold.T, model.sizes, strict=True)
    ]
    with torch.no_grad():
        model.feature_mean.copy_(torch.from_numpy(train.features.mean(0)))
        model.feature_std.copy_(torch.from_numpy(np.where(std > 1e-6, std, 1.0)))
        model.output.bias.copy_(torch.from_numpy(np.concatenate([np.log(one / one.sum()) for one in frequencies])))
    if model.hidden is not None:
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.kaiming_uniform_(model.hidden.weight, nonlinearity="relu", generator=generator)
        torch.nn.init.zeros_(model.hidden.bias)
        torch.nn.init.normal_(model.output.weight, std=0.01, generator=generator)


def _train_epoch(
    model: CRF,
    optimizer: torch.optim.Optimizer,
    train: ClipArrays,
    config: CRFTrainConfig,
    random: np.random.Generator,
) -> float:
    """One pass over the training clips; returns the mean log likelihood, without the prior, in nats per clip."""
    model.train()
    factors = [*model.pairwise, *model.transition]
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    priors = [(config.weight_decay, one) for one in weights] + [(config.factor_decay, one) for one in factors]
    count, total = int(train.labeled.sum()), 0.0
    for rows in train.batches(np.arange(len(train)), config.batch_size, model.config.chain, random):
        clips = train.select(rows)
        log_likelihood = conditional_log_likelihood(model, clips)
        prior = sum(decay * matrix.square().sum() for decay, matrix in priors)
        loss = -log_likelihood / max(1, int(clips.labeled.sum())) + 0.5 / count * prior
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(log_likelihood.detach())
    return total / count
