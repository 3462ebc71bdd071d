"""Combine several numbers into one seed, so that randomness is a pure function of them."""

from __future__ import annotations

import numpy as np


def mix_seeds(*numbers: int) -> int:
    """A 63-bit seed computed from several numbers, such as a run's seed, a step and a process."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
