"""Addresses are fetched from public machines only: each way around that is a test."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from captioner.web import fetch
from captioner.web.fetch import Fetcher, FetchError, is_public

PUBLIC = "93.184.216.34"

LOCAL = """127.0.0.1 127.8.9.10 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 192.0.0.8 192.0.2.1
198.18.0.1 198.51.100.1 203.0.113.1 192.88.99.1 224.0.0.1 240.0.0.1 255.255.255.255
::1 :: fe80::1 fe80::1%1 fc00::1 fd12:3456::1 fec0::1 ff02::1 2001:db8::1 ::7f00:1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::808:808
2002:7f00:1:: 2002:a00:1:: 2002:a9fe:a9fe:: 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:0:7f00:1::
2606:4700::5efe:7f00:1 2606:4700::200:5efe:a00:1""".split()


@pytest.mark.parametrize("address", [*LOCAL, "", "localhost", "0x7f.1", "8.8.8.8/8"])
def test_addresses_that_are_not_public(address: str) -> None:
    """Would catch loopback, private, carrier, link-local and metadata addresses, in IPv6's clothes too."""
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    """Would catch a check that refuses everything, hosts behind NAT64 among them."""
    assert is_public(address)


class Site(BaseHTTPRequestHandler):
    """A site of images and of what a hostile one does."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Recorder)
        self.server.asked.append((self.headers["Host"], self.path, self.headers.get("Cookie")))
        with suppress(OSError):  # the client has heard enough
            self.answer(self.path)

    def answer(self, path: str) -> None:
        if path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", path.removeprefix("/to/"))
            self.send_header("Set-Cookie", "a=b")
            self.end_headers()
        elif path == "/drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif path == "/drip-header":
            for _ in range(100):
                self.wfile.write(b"H")
                time.sleep(0.05)
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        elif path == "/zip":
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.end_headers()
        elif path == "/large":
            self.send_response(200)
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(b"x" * 1000)
        else:
            self.send_response(200 if path.startswith("/photo") else 404)
            self.end_headers()
            self.wfile.write(b"a photo")

    def log_message(self, *_: object) -> None:
        pass


class Recorder(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Site)
        self.asked: list[tuple[str, str, str | None]] = []
        self.connected: list[tuple[str, int]] = []

    def connect(self, address: str, port: int, timeout: float) -> socket.socket:
        """What the fetcher calls: any public address leads here."""
        self.connected.append((address, port))
        return socket.create_connection(self.server_address[:2], timeout)


@pytest.fixture
def site() -> Iterator[Recorder]:
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def fetcher(site: Recorder) -> Fetcher:
    names = {"photos.example": [PUBLIC], "inside.example": ["10.0.0.1"], "both.example": [PUBLIC, "127.0.0.1"]}
    return Fetcher(2, 10_000, lambda host, port: names.get(host, [host]), site.connect)


def test_a_photo_comes_from_the_checked_address(site: Recorder, fetcher: Fetcher) -> None:
    """Would catch a second look-up of the name, and a Host header with the address in it."""
    assert fetcher.fetch("http://photos.example/photo.jpg?a=1#part") == b"a photo"
    assert site.asked == [("photos.example", "/photo.jpg?a=1", None)] and site.connected == [(PUBLIC, 80)]


def test_the_name_is_resolved_once(site: Recorder, fetcher: Fetcher) -> None:
    """Would catch DNS rebinding: a name that is public when it is checked and local when it is connected to."""
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    assert replace(fetcher, resolve=lambda host, port: next(answers)).fetch("http://photos.example/photo") == b"a photo"
    assert site.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize("host", ["inside.example", "both.example", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_local_machines_are_not_asked(site: Recorder, fetcher: Fetcher, host: str) -> None:
    """Would catch a local address, a name that has one, and one among several."""
    with pytest.raises(FetchError, match="not a public address"):
        fetcher.fetch(f"http://{host}/photo")
    assert not site.connected


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost"])
def test_other_ways_to_write_an_address(host: str) -> None:
    """Would catch a check of the text instead of what the system makes of it."""
    with pytest.raises(FetchError):
        Fetcher(2).fetch(f"http://{host}/photo")


@pytest.mark.parametrize(
    "address",
    [
        "http://10.0.0.1/photo",
        "http://inside.example/photo",
        "//127.0.0.1/photo",
        "file:///etc/passwd",
        "gopher://photos.example/",
        "http://photos.example:8080/photo",
    ],
)
def test_each_redirect_is_checked(site: Recorder, fetcher: Fetcher, address: str) -> None:
    """Would catch a public site that sends the fetcher inside, to a file or to another port."""
    with pytest.raises(FetchError):
        fetcher.fetch(f"http://photos.example/to/{address}")
    assert site.connected == [(PUBLIC, 80)]


def test_redirects_end_and_carry_no_cookies(site: Recorder, fetcher: Fetcher) -> None:
    """Would catch endless redirects, ones that are not followed at all, and a session."""
    assert fetcher.fetch("http://photos.example/to/http://photos.example/to//photo") == b"a photo"
    assert [cookie for *_, cookie in site.asked] == [None] * 3
    with pytest.raises(FetchError, match="more than 3 redirects"):
        fetcher.fetch("http://photos.example/to/" * 4 + "photo")


@pytest.mark.parametrize(
    "address",
    [
        "ftp://photos.example/photo",
        "file:///etc/passwd",
        "photos.example/photo",
        "http://photos.example:22/photo",
        "https://photos.example:80/photo",
        "http://user:password@photos.example/photo",
        "http://photos.example@127.0.0.1/photo",
        "http://[fe80::1%25eth0]/photo",
        "http:///photo",
        "http://photos.example\\@127.0.0.1/",
        "http://photos.example/a b",
        "http://photos.example/\r\nHost: other",
        "http://photos.exämple/",
        "http://[::1/photo",
        "http://photos.example:x/",
        "http://photos.example/" + "a" * 3000,
        "",
    ],
)
def test_addresses_of_another_kind(site: Recorder, fetcher: Fetcher, address: str) -> None:
    """Would catch other schemes and ports, users, zones, and what parsers disagree about."""
    with pytest.raises(FetchError):
        fetcher.fetch(address)
    assert not site.connected


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("large", "more than 0 MB"),
        ("short", "cannot be fetched|ended before the file did"),
        ("zip", "compressed"),
        ("missing", "answered 404"),
        ("drip", "took more than 0.5 seconds"),
        ("drip-header", "took more than 0.5 seconds"),
    ],
)
def test_limits_and_failures(site: Recorder, fetcher: Fetcher, path: str, reason: str) -> None:
    """Would catch a site that sends without end, a byte at a time, half a file, or a bomb."""
    began = time.monotonic()
    with pytest.raises(FetchError, match=reason):
        replace(fetcher, seconds=0.5).fetch(f"http://photos.example/{path}")
    assert time.monotonic() - began < 2


def test_names_that_do_not_resolve(site: Recorder) -> None:
    """Would catch a traceback of the resolver's."""

    def fail(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(FetchError, match="cannot be fetched"):
        Fetcher(2, resolve=fail).fetch("http://nowhere.example/")
    with pytest.raises(FetchError, match="has no address"):
        Fetcher(2, resolve=lambda host, port: []).fetch("http://nowhere.example/")


def test_https_names_the_host_and_checks_the_certificate(
    tmp_path: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a certificate that nobody checks, or that is checked for the address instead of the name."""
    import ssl

    made = _certificate(tmp_path)
    with _tls_site(made) as (connect, names):
        secure = replace(fetcher, connect=connect)
        with pytest.raises(FetchError, match="certificate verify failed"):
            secure.fetch("https://photos.example/photo")
        default = ssl.create_default_context
        monkeypatch.setattr(fetch.ssl, "create_default_context", lambda: default(cafile=str(made)))
        assert secure.fetch("https://photos.example/photo") == b"a photo"
        assert names[-1] == "photos.example"
        with pytest.raises(FetchError, match="certificate verify failed"):
            replace(secure, resolve=lambda host, port: [PUBLIC]).fetch("https://other.example/photo")


def _certificate(folder: Path) -> Path:
    """A certificate for photos.example with its key."""
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=photos.example -addext".split()
    name = "subjectAltName=DNS:photos.example"
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    try:
        subprocess.run(["openssl", *options, name, *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl to make a certificate")
    made = folder / "both.pem"
    made.write_text((folder / "certificate").read_text() + (folder / "key").read_text())
    return made


@contextmanager
def _tls_site(certificate: Path) -> Iterator[tuple[Callable[[str, int, float], socket.socket], list[str]]]:
    import ssl

    names: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda connection, name, _: names.append(str(name))
    with Recorder() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that does not trust it
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.connect, names
        server.shutdown()
        thread.join()
