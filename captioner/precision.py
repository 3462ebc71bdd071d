"""The number format of training, found by a trial and not from the CPU's flags."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from captioner.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16")
"""Values of ``train.precision``; ``auto`` is bfloat16 if LSTMs can be trained in it, else float32."""


def resolve_precision(wanted: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16`` for ``wanted``, one of ``PRECISIONS``, on ``device``.

    Raises ``ConfigError`` for bfloat16 on a device that cannot train LSTMs in it.
    """
    if wanted == "float32" or (wanted == "auto" and not supports_bfloat16(device)):
        return "float32"
    if not supports_bfloat16(device):
        raise ConfigError(
            f"train.precision bfloat16: {device} cannot train LSTMs in bfloat16; use auto (float32 here) or float32"
        )
    return "bfloat16"


@cache
def supports_bfloat16(device: torch.device) -> bool:
    """Whether an LSTM can be trained in bfloat16 on ``device``, found by one forward and backward pass of a tiny one.

    CPU flags do not decide it, because oneDNN can be limited below them (``ONEDNN_MAX_CPU_ISA``). Neither torch's
    global random state nor its gradient mode is changed.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad():
        try:
            layer = nn.LSTM(8, 8, device=device)
            with torch.autocast(device.type, torch.bfloat16):
                output, _ = layer(torch.zeros(2, 2, 8, device=device))  # (T, N, D)
            output.float().sum().backward()
        except (RuntimeError, NotImplementedError):  # oneDNN: "could not create a primitive descriptor for the LSTM"
            return False
    return True
