"""Fetch an image by its address, without access to addresses inside the network (SSRF).

The name is resolved once, all of its addresses are checked, and the connection goes to a checked address, so it makes
no difference if the name resolves otherwise a moment later. Each redirect is checked in the same way. Time, bytes and
redirects are limited; no cookies, credentials or proxies are used.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from captioner import __version__
from captioner.errors import CaptionerError

PORTS = {"http": 80, "https": 443}
REDIRECTS = 3
"""Most redirects that are followed."""
MOVED = (301, 302, 303, 307, 308)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
REFUSED = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48")))
"""Networks that some releases of Python consider public: protocol assignments, 6to4 relays, local NAT64."""
COMPATIBLE = ipaddress.IPv6Network("::/96")
ISATAP = (0x00005EFE, 0x02005EFE)
"""The third 32 bits of an IPv6 address that carries an IPv4 address in the fourth."""
LONGEST = 2048
"""Most characters of an address."""
CHUNK = 1 << 16

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class FetchError(CaptionerError):
    """An address that is refused, or that cannot be fetched."""


def _connect(address: str, port: int, timeout: float) -> socket.socket:
    return socket.create_connection((address, port), timeout)


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


@dataclass(frozen=True)
class Fetcher:
    """Fetches images within limits; name resolution and connections can be replaced in tests."""

    seconds: float = 10
    """Limit for the whole fetch, including redirects."""
    most: int = 20 * 2**20
    """Most bytes of a file."""
    resolve: Callable[[str, int], Sequence[str]] = _resolve
    """Resolves a host and port to IP addresses."""
    connect: Callable[[str, int, float], socket.socket] = _connect
    """Connects to an IP address and port, given a timeout in seconds."""

    def fetch(self, address: str) -> bytes:
        """The content of an http(s) address; raises ``FetchError`` for other addresses and failed requests."""
        deadline = _Deadline(self.seconds)
        try:
            for _ in range(REDIRECTS + 1):
                content, address = self._get(_parse(address), deadline)
                if content is not None:
                    return content
        except FetchError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            if deadline.over:
                raise FetchError(f"{address}: took more than {self.seconds:g} seconds") from error
            raise FetchError(f"{address}: cannot be fetched: {error}") from error
        finally:
            deadline.cancel()
        raise FetchError(f"{address}: more than {REDIRECTS} redirects")

    def _get(self, url: SplitResult, deadline: _Deadline) -> tuple[bytes | None, str]:
        """The content and '', or None and the target of a redirect."""
        host, port = url.hostname or "", PORTS[url.scheme]
        checked = self._checked(host, port)
        connection = http.client.HTTPConnection(host, port)  # never connects itself
        connection.default_port = port  # so that the Host header has no port
        plain = self.connect(checked, port, self.seconds)
        deadline.watch(plain)
        try:
            secure = ssl.create_default_context() if url.scheme == "https" else None
            connection.sock = secure.wrap_socket(plain, server_hostname=host) if secure else plain
            deadline.watch(connection.sock)
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": f"captioner/{__version__}"}
            connection.request("GET", target, headers=headers | {"Connection": "close"})
            response = connection.getresponse()
            here = url.geturl()
            if response.status in MOVED:
                return None, urljoin(here, response.getheader("Location") or "")
            if response.status != 200:
                raise FetchError(f"{here}: the server answered {response.status}")
            if response.getheader("Content-Encoding", "identity") != "identity":
                raise FetchError(f"{here}: the server sent compressed data, which was not asked for")
            content = self._read(response, here)
            if deadline.over:  # the deadline cut the file off
                raise TimeoutError
            return content, here
        finally:
            connection.close()
            plain.close()

    def _read(self, response: http.client.HTTPResponse, address: str) -> bytes:
        content = bytearray()
        while part := response.read(CHUNK):
            content += part
            if len(content) > self.most:
                raise FetchError(f"{address}: more than {self.most / 2**20:.0f} MB")
        if response.length:
            raise FetchError(f"{address}: the connection ended before the file did")
        return bytes(content)

    def _checked(self, host: str, port: int) -> str:
        """An IP address of ``host``; raises ``FetchError`` unless all of its addresses are public."""
        found = list(self.resolve(host, port))
        if not found:
            raise FetchError(f"{host}: has no address")
        for address in found:
            if not is_public(address):
                raise FetchError(f"{host}: is {address}, which is not a public address")
        return found[0]


class _Deadline:
    """Closes a connection when the time is over: a socket's timeout restarts with every byte."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connection: socket.socket) -> None:
        self._socket = connection
        if self.over:
            self._end()

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self.over = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def is_public(address: str) -> bool:
    """Whether an IP address, and each IPv4 address that an IPv6 address carries, belongs to the public internet."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return all(_is_public(one) for one in (found, *_carried(found)))


def _is_public(address: IPAddress) -> bool:
    special = address.is_private or address.is_loopback or address.is_link_local or address.is_unspecified
    if isinstance(address, ipaddress.IPv6Address):
        special = special or address.is_site_local or address.scope_id is not None
        if address in NAT64:  # judged by the IPv4 address in it; Python calls it reserved
            return not special
    special = special or any(address in network for network in REFUSED)
    return address.is_global and not (special or address.is_multicast or address.is_reserved)


def _carried(address: IPAddress) -> list[IPAddress]:
    """IPv4 addresses inside an IPv6 address: mapped, compatible, 6to4, Teredo, NAT64 and ISATAP."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    carried: list[IPAddress] = [one for one in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if one]
    if address in COMPATIBLE or address in NAT64:
        carried.append(last)
    if (int(address) >> 32) & 0xFFFFFFFF in ISATAP:
        carried.append(last)
    return carried


def _parse(address: str) -> SplitResult:
    """The parts of an address that may be fetched; raises ``FetchError`` with the reason for any other."""
    if len(address) > LONGEST or not re.fullmatch(r"[!-~]+", address) or "\\" in address:
        raise FetchError(f"{address[:80]}: not an address of printable ASCII characters without spaces")
    try:
        url = urlsplit(address)
        port, host = url.port, url.hostname
    except ValueError as error:
        raise FetchError(f"{address[:80]}: not an address ({error})") from error
    if url.scheme not in PORTS:
        raise FetchError(f"{address[:80]}: only http and https addresses are fetched")
    if port not in (None, PORTS[url.scheme]):
        raise FetchError(f"{address[:80]}: only the ports 80 of http and 443 of https are fetched")
    if not host or url.username is not None or url.password is not None or "%" in host:
        raise FetchError(f"{address[:80]}: give an address with a host, without a user or zone")
    return url._replace(fragment="")
