"""``captioner serve`` under load: many visitors upload at once for a minute, and retry when they are asked to.

Both sides of a ratio are from one run: memory at its end over that after its first sixth, and the 95th percentile of
the response time over the median. A response other than 200 and 503 is an error.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from benchmarks.images import PHOTO, make_images
from benchmarks.measure import AT_MOST, ROOT, Measurement, once
from benchmarks.startup import captioner_command
from captioner.errors import CaptionerError

MEMORY_TARGET = 1.1
SETTLED = 1 / 6
"""Share of the time after which memory should not grow."""


def measure(clients: int = 64, duration: float = 60.0, photo: Path = PHOTO) -> list[Measurement]:
    """Memory and latency of the server while ``clients`` upload at once for ``duration`` seconds."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder, "index")) as (process, address):
        images = [path.read_bytes() for path in make_images(Path(folder), 16, photo)]
        visit = _Visit(address, images, process.pid)
        asyncio.run(visit.run(clients, duration))
        if process.poll() is not None or set(visit.statuses) - {200, 503} or not visit.seconds:
            raise CaptionerError(f"captioner serve answered {dict(visit.statuses)} to {clients} clients")
    early, late = visit.memory
    typical, worst = np.percentile(visit.seconds, (50, 95))
    per_second, refused = visit.statuses[200] / duration, visit.statuses[503] / visit.statuses.total()
    label = f"{clients} clients"
    return [
        once(f"memory of the server, {label}", "MiB", late, early, MEMORY_TARGET, AT_MOST),
        once(f"p95 over median latency, {label}", "s", worst, typical),
        once(f"captions a second, {label}", "images/s", per_second, 1),
        once(f"share of answers that are 503, {label}", "share", refused, 1),
    ]


@contextmanager
def serving(index: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server and its address."""
    command = [*captioner_command(), "serve", "--port", "0", "--index", str(index)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://\S+/", process.stderr.readline())
            if not found:
                raise CaptionerError("captioner serve does not start; is the extra web installed?")
            yield process, found[0]
        finally:
            process.terminate()


class _Visit:
    """Requests of many clients to a server, and their results."""

    def __init__(self, address: str, images: list[bytes], pid: int) -> None:
        self.address, self.images, self.pid = address, images, pid
        self.seconds: list[float] = []
        """Response times, in seconds, of the captioned uploads."""
        self.statuses: Counter[int] = Counter()
        self.memory = (0.0, 0.0)

    async def run(self, clients: int, duration: float) -> None:
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            end = time.monotonic() + duration
            visits = [asyncio.create_task(self._visit(client, number, end)) for number in range(clients)]
            await asyncio.sleep(duration * SETTLED)
            early = resident(self.pid)
            await asyncio.gather(*visits)
            self.memory = early, resident(self.pid)

    async def _visit(self, client: httpx.AsyncClient, number: int, end: float) -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            image = self.images[number % len(self.images)]
            answer = await client.post(f"{self.address}api/caption", files={"image": image})
            self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                self.seconds.append(time.monotonic() - began)
            else:
                await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
            number += 1


def resident(pid: int) -> float:
    """Memory of a process in MiB; only on Linux."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    if found is None:
        raise CaptionerError("memory of a running server is measured on Linux only")
    return int(found[1]) / 2**10
