"""What all tests share: no network, no cache of the user's, few threads, and the markers' conditions."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from tests import windows_rules

# Before torch is imported. Tests work on tiny tensors, where a second thread costs more than it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

CHECKOUT = Path(__file__).parents[1]
Run = Callable[..., tuple[int, list[str], list[str]]]
"""Arguments of a command to its exit status, and its lines on stdout and stderr."""

hypothesis.settings.register_profile("captioner", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("captioner")  # the same examples on every machine, slow ones included


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--kills", type=int, default=5, help="how often tests/kills kill each command")
    parser.addoption("--network", action="store_true", help="also run the tests marked network")


def pytest_configure() -> None:
    windows_rules.install()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if item.get_closest_marker("network") and not config.getoption("--network"):
            item.add_marker(pytest.mark.skip(reason="needs a network; run with --network"))
        if item.get_closest_marker("java") and not shutil.which("java"):
            item.add_marker(pytest.mark.skip(reason="needs a Java runtime"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets, for tests marked ``shared_data``; they skip where there is none."""
    folder = Path(os.environ.get("CAPTIONER_SHARED_DATA") or CHECKOUT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("needs real data sets; CAPTIONER_SHARED_DATA names their folder")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads of the user's are neither seen nor touched."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("CAPTIONER_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches beyond this machine fails, unless it is marked ``network``."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1", "localhost")):
            raise OSError(f"tests do not use the network (tried {address})")
        connect(self, address)

    if not request.node.get_closest_marker("network"):
        monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``captioner`` with arguments, in this process, as a ``Run``; ``stdin`` is a text."""
    from captioner.cli.app import main

    def run_command(*arguments: object, stdin: str = "") -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["captioner", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            status = main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        out, err = (text.removesuffix("\n").split("\n") if text else [] for text in capsys.readouterr())
        return status, out, err

    return run_command
