"""Significance tests over images: paired bootstrap resampling and approximate randomization.

Both follow sacreBLEU (``sacrebleu --paired-bs`` and ``--paired-ar``, version 2.6) in their random draws and formulas,
so that they give its numbers for BLEU: 1,000 bootstrap resamples (Koehn 2004), 10,000 trials (Riezler and Maxwell
2005), seed 12345 or ``SACREBLEU_SEED``, and p = (c + 1) / (n + 1). Other scores are tested in the same way. Unlike in
sacreBLEU, c includes differences that equal the observed one, which are common if two systems differ on few images.

A system may consist of several runs, such as seeds. Its score is then the mean over them, in each resample too, so the
interval reflects only the choice of images; ``spread`` is the standard deviation over the runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from captioner.errors import ConfigError, DataError
from captioner.metrics.base import Array, Scored

RESAMPLES = 1000
TRIALS = 10_000
SEED = 12345
TOLERANCE = 1e-9  # percent; smaller differences are rounding errors
BATCH_SIZE = 500  # resamples scored together

Scores = dict[str, Array]


@dataclass(frozen=True)
class Estimate:
    """One score of one system, in percent. p-values are against the first system, which has none itself."""

    score: float
    """Score over all images; the mean over the system's runs."""
    mean: float
    """Mean over the bootstrap resamples."""
    interval: float
    """Half the width of the 95 % confidence interval, as sacreBLEU prints it: ``mean`` +- ``interval``."""
    low: float
    high: float
    """The ends of the interval: 2.5 % of the resamples lie below, and 2.5 % above."""
    p_bootstrap: float | None = None
    p_randomization: float | None = None
    """p-value by approximate randomization; None also if the numbers of runs differ, as runs are swapped in pairs."""
    spread: float | None = None
    """Standard deviation over the runs; None for a single run."""
    runs: int = 1


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the same order, so that they bound the chance of any false positive.

    Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure": the i-th smallest of m p-values is
    multiplied by m - i + 1, and each is at least as large as the one before it.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    found: list[float] = corrected.tolist()
    return found


def compare_systems(
    systems: Mapping[str, Scored | Sequence[Scored]],
    *,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int | None = -1,
) -> dict[str, dict[str, Estimate]]:
    """Each score of each system with its interval and p-values against the first system: ``found[system][score]``.

    Raises ``DataError`` unless all are scored on the same images and references by the same metrics. ``trials=0`` skips
    approximate randomization. ``seed``: -1 for sacreBLEU's, None for a random one.
    """
    groups = {name: [runs] if isinstance(runs, Scored) else list(runs) for name, runs in systems.items()}
    _check(groups)
    seed = default_seed() if seed == -1 else seed
    base, *others = groups
    size = len(groups[base][0].images)
    resampled = _resample(groups, size, resamples, seed)
    differences = {}
    if trials:
        swaps = np.random.default_rng(seed).integers(2, size=(trials, size), dtype=bool)
        differences = {name: _swapped_differences(groups[base], groups[name], swaps) for name in others}
    found: dict[str, dict[str, Estimate]] = {}
    for name, runs in groups.items():
        found[name] = {}
        for score in runs[0].scores:
            values = [run[score].value for run in runs]
            gap = abs(found[base][score].score - float(np.mean(values))) if name != base else 0.0
            swapped = differences.get(name)
            found[name][score] = Estimate(
                float(np.mean(values)),
                *confidence_interval(resampled[name][score]),
                p_bootstrap=None if name == base else _bootstrap_p(resampled[base][score], resampled[name][score], gap),
                p_randomization=None if swapped is None else p_value(swapped[score], gap),
                spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
                runs=len(values),
            )
    return found


def confidence_interval(scores: Array) -> tuple[float, float, float, float]:
    """Mean, half the width, and both ends of the 95 % interval of resampled scores (W,)."""
    ordered = np.sort(scores)
    outside = len(ordered) // 40
    low, high = float(ordered[outside]), float(ordered[len(ordered) - outside - 1])
    return float(ordered.mean()), (high - low) / 2, low, high


def p_value(differences: Array, observed: float) -> float:
    """Share of ``differences`` (W,) that are at least as large as the observed one, (c + 1) / (n + 1).

    sacreBLEU counts only larger ones. So it calls systems significantly different that differ on a single image, where
    every trial of approximate randomization has the same difference.
    """
    return float((np.sum(differences >= observed - TOLERANCE) + 1) / (len(differences) + 1))


def default_seed() -> int | None:
    """``SACREBLEU_SEED``, 12345 by default; None, for a random seed, if it is "none"."""
    text = os.environ.get("SACREBLEU_SEED", str(SEED)).lower()
    if text == "none":
        return None
    if not text.isdecimal():
        raise ConfigError(f"SACREBLEU_SEED={text}: must be a number from 0 on, or none")
    return int(text)


def _check(groups: Mapping[str, Sequence[Scored]]) -> None:
    if not groups or not all(groups.values()):
        raise DataError("there is no system to compare; give captions of at least one for each")
    (first, *_), *_ = groups.values()
    for name, runs in groups.items():
        for run in runs:
            if run.images != first.images or run.metadata != first.metadata or [*run.scores] != [*first.scores]:
                raise DataError(f"{name} was scored on other images, references or metrics than {next(iter(groups))}")


def _resample(groups: Mapping[str, Sequence[Scored]], size: int, number: int, seed: int | None) -> dict[str, Scores]:
    """The scores (number,) of each system in bootstrap resamples; all systems get the same images."""
    rows = np.random.default_rng(seed).choice(size, size=(number, size), replace=True)
    parts: dict[str, list[Scores]] = {name: [] for name in groups}
    for some in _batches(number):
        weights = np.stack([np.bincount(row, minlength=size) for row in rows[some]]).astype(np.float64)
        for name, runs in groups.items():
            parts[name].append(_mean([run.reweighted(weights) for run in runs]))
    return {name: _concatenate(pieces) for name, pieces in parts.items()}


def _bootstrap_p(base: Array, other: Array, gap: float) -> float:
    differences = np.abs(other - base)
    return p_value(differences - differences.mean(), gap)


def _swapped_differences(base: Sequence[Scored], other: Sequence[Scored], swaps: NDArray[np.bool_]) -> Scores | None:
    """Absolute differences (T,) of each score with the captions of images in ``swaps`` (T, N) swapped, run by run."""
    if len(base) != len(other):
        return None
    parts: list[Scores] = []
    for some in _batches(len(swaps)):
        kept = swaps[some].astype(np.float64)
        sides: list[list[Scores]] = [[], []]
        for one, two in zip(base, other, strict=True):
            pairs = list(zip(one.statistics, two.statistics, strict=True))
            moved = [kept @ (a - b) for a, b in pairs]
            sides[0].append(one.aggregate([b.sum(0) + m for (_, b), m in zip(pairs, moved, strict=True)]))
            sides[1].append(one.aggregate([a.sum(0) - m for (a, _), m in zip(pairs, moved, strict=True)]))
        left, right = map(_mean, sides)
        parts.append({name: np.abs(left[name] - right[name]) for name in left})
    return _concatenate(parts)


def _batches(number: int) -> Iterator[slice]:
    return (slice(first, first + BATCH_SIZE) for first in range(0, number, BATCH_SIZE))


def _mean(runs: Sequence[Scores]) -> Scores:
    return {name: np.mean([run[name] for run in runs], 0) for name in runs[0]}


def _concatenate(pieces: Sequence[Scores]) -> Scores:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
