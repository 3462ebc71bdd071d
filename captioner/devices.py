"""Find devices by torch's names."""

from __future__ import annotations

import torch

from captioner.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device of a name such as ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises ``UsageError`` for one that torch does not know or this machine does not have.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(f"device {name!r} is not available; use --device cpu") from None
    return device
