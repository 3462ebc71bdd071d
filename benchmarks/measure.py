"""Time two tasks in turns: a ratio from one run is also valid on a busy machine, and on another one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from captioner.errors import CaptionerError

ROOT = Path(__file__).parents[1]
AT_LEAST, AT_MOST = "at least", "at most"


@dataclass(frozen=True)
class Measurement:
    """A ratio ``ours`` / ``baseline``, both medians over the rounds, in ``unit``."""

    benchmark: str
    ratio: float
    ours: float
    baseline: float
    unit: str
    rounds: int
    low: float
    """Smallest ratio of any round."""
    high: float
    """Largest ratio of any round."""
    target: float | None = None
    """The ratio to reach; None for a row without a target."""
    direction: str = AT_LEAST

    @property
    def verdict(self) -> str:
        """PASS or MISS; empty without a target."""
        if self.target is None:
            return ""
        met = self.ratio >= self.target if self.direction == AT_LEAST else self.ratio <= self.target
        return "PASS" if met else "MISS"


def compare(
    benchmark: str,
    unit: str,
    ours: Callable[[], float],
    baseline: Callable[[], float],
    *,
    rounds: int,
    warm_up: bool = True,
    target: float | None = None,
    direction: str = AT_LEAST,
) -> Measurement:
    """Call both in turns, each first in every other round; they return their measurements, in ``unit``.

    With ``warm_up`` one more round comes first, which does not count.
    """
    pairs = []
    for number in range(-1 if warm_up else 0, rounds):
        if number % 2:
            below, above = baseline(), ours()
        else:
            above, below = ours(), baseline()
        if number >= 0:
            pairs.append((above, below))
    top, bottom = (median(values) for values in zip(*pairs, strict=True))
    each = [above / below for above, below in pairs]
    return Measurement(benchmark, top / bottom, top, bottom, unit, rounds, min(each), max(each), target, direction)


def once(
    benchmark: str, unit: str, ours: float, baseline: float, target: float | None = None, direction: str = AT_LEAST
) -> Measurement:
    """A ratio of two numbers that were measured only once."""
    ratio = ours / baseline
    return Measurement(benchmark, ratio, ours, baseline, unit, 1, ratio, ratio, target, direction)


def seconds(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rate(count: float, work: Callable[[], object]) -> Callable[[], float]:
    """A function that does ``work`` and returns ``count`` divided by the seconds it took."""
    return lambda: count / seconds(work)


def run_command(command: Sequence[str]) -> str:
    """The stdout of a command run in the checkout; ``CaptionerError`` with its last line on stderr if it fails."""
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise CaptionerError(f"{' '.join(command[:4])} ...: {reason}")
    return done.stdout
