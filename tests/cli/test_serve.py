"""``captioner serve``: it starts, says where, answers, and ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from captioner.cli.app import main
from captioner.cli.serve import _bind
from tests.conftest import CHECKOUT, Run


def serve(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A server that runs, and its address."""
    command = [sys.executable, "-m", "captioner", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://\S+/", line)
    assert found, line
    return process, found[0]


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    """Would catch a command that needs an index, says another address, or does not end."""
    process, address = serve("--index", str(tmp_path / "index"))
    try:
        assert address.startswith("http://127.0.0.1:")
        assert "What is in this image" in httpx.get(address).text
        files = {"image": (CHECKOUT / "examples" / "dog.jpg").read_bytes()}
        assert "shepherd" in httpx.post(f"{address}api/caption", files=files, timeout=60).json()["captions"][0]["text"]
        assert "403" in str(httpx.post(f"{address}api/caption", files={"x": b""}, data={"url": address}))
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
        assert process.stderr is not None
        process.stderr.close()


def test_addresses_of_this_machine_are_not_fetched(tmp_path: Path) -> None:
    """Would catch --allow-urls that lets a visitor see what only this machine can reach."""
    process, address = serve("--index", str(tmp_path / "index"), "--allow-urls")
    try:
        for url in (address, address.replace("127.0.0.1", "localhost"), "http://127.0.0.1/", "http://[::1]/"):
            answer = httpx.post(f"{address}api/caption", files={"x": b""}, data={"url": url})
            assert answer.status_code == 400 and re.search(
                "not a public address|only the ports", answer.json()["error"]
            )
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(20)
        assert process.stderr is not None
        process.stderr.close()


def test_the_address_is_shown_when_visitors_may_come() -> None:
    """Would catch a socket that is bound but refuses visitors until the server has started."""
    with _bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname(), timeout=5) as visitor:
        assert visitor.getpeername() == listening.getsockname()


def test_a_port_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch a traceback of the server's."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setattr("sys.argv", ["captioner", "serve", "--port", port, "--index", str(tmp_path / "index")])
        assert main() == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a*b", "*a", "*.a*", "**"])
def test_a_pattern_of_hosts_that_no_server_takes(cli: Run, tmp_path: Path, name: str) -> None:
    """Would catch a server that starts, and answers each request with status 500."""
    with socket.socket() as taken:  # so that no server starts if the name is accepted
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = cli("serve", "--port", port, "--index", tmp_path / "index", "--allow-host", name)
        assert status == 2
        assert err == [f"error: --allow-host {name}: write a name, or *.example.com for all names below it"]
        for good in ("photos.example.com", "*.example.com", "*"):
            _, _, err = cli("serve", "--port", port, "--index", tmp_path / "index", "--allow-host", good)
            assert "cannot listen on" in err[0]


def test_packages_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch an import error instead of what to install."""
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setattr("sys.argv", ["captioner", "serve"])
    assert main() == 1
    assert "pip install 'captioner[web]'" in capsys.readouterr().err


def test_models_that_do_not_go_together(cli: Run, tmp_path: Path) -> None:
    """Would catch a captioner that is passed over in silence, and a model of clips that fails at the first video."""
    from tests import tiny

    tiny.save_tiny(tmp_path / "tiny.safetensors")
    models = ("--model", "default", "--model", tmp_path / "tiny.safetensors")
    status, _, err = cli("serve", "--index", tmp_path / "index", *models)
    assert status == 2 and "both caption images; give only one" in err[0]
