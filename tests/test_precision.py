"""Training's number format: what the device can do decides, and a device that cannot says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from captioner.errors import ConfigError
from captioner.precision import resolve_precision, supports_bfloat16
from tests.conftest import CHECKOUT
from tests.toy import make_data, write_config

CPU = torch.device("cpu")


def test_what_is_resolved() -> None:
    """Would catch: an automatic choice that the device cannot compute in, or one that is refused."""
    assert resolve_precision("float32", CPU) == "float32"
    assert resolve_precision("auto", CPU) == ("bfloat16" if supports_bfloat16(CPU) else "float32")


def test_trying_leaves_no_trace() -> None:
    """Would catch a try-out that shifts the caller's random numbers or fails inside inference mode."""
    supports_bfloat16.cache_clear()
    state = torch.get_rng_state()
    with torch.inference_mode():
        supports_bfloat16(CPU)
    assert torch.equal(state, torch.get_rng_state())


def test_a_processor_without_bfloat16(tmp_path: Path) -> None:
    """Would catch the traceback "could not create a primitive descriptor" on processors of before AVX-512."""
    data = make_data(tmp_path / "data")
    config = write_config(data, tmp_path / "run", train__precision="auto", train__epochs=1)
    limited = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(CHECKOUT)}

    def run(*settings: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "captioner", "train", str(config), *settings]
        return subprocess.run(command, env=limited, capture_output=True, text=True)

    done = run()
    assert done.returncode == 0, done.stderr
    [start, *_] = map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
    if start["precision"] == "bfloat16":
        pytest.skip("this processor's limit cannot be lowered (not x86)")
    note = "precision: float32, because cpu cannot train LSTMs in bfloat16"
    assert note in done.stderr and note in start["notes"]
    refused = run("--set", "train.precision=bfloat16", "--no-resume")
    assert refused.returncode == 1
    assert (
        refused.stderr.startswith("error: train.precision bfloat16: cpu cannot train")
        and "\n" not in refused.stderr.strip()
    )


def test_a_device_that_cannot_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.precision.supports_bfloat16", lambda device: False)
    assert resolve_precision("auto", CPU) == "float32"
    with pytest.raises(ConfigError, match="use auto"):
        resolve_precision("bfloat16", CPU)
