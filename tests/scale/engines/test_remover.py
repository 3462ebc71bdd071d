from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from captioner.scale.engines.base import temporary_folder
from tests.conftest import CHECKOUT

DRIVER = """
import subprocess, sys, time
from captioner.scale.engines.base import temporary_folder
with temporary_folder() as folder:
    with open(folder + "/log", "w") as log:
        user = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=log)
    print(folder, user.pid, flush=True)
    time.sleep(60)
"""


def state(pid: str) -> str:
    """The letter that Linux has for a process; Z for one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_driver_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """Would catch temporary files that stay, and processes that use them and go on for a minute."""
    variables = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True, env=variables) as driver:
        assert driver.stdout is not None
        folder, pid = driver.stdout.readline().split()
        assert os.listdir(tmp_path) == [Path(folder).name] and state(pid) != "Z"
        driver.kill()
    limit = time.monotonic() + 30
    while os.listdir(tmp_path) or state(pid) != "Z":
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_the_end_of_a_block_ends_no_driver() -> None:
    """Would catch a driver that is killed because it has a file in the folder open itself, as with Ray's logs."""
    with temporary_folder() as folder:
        stream = open(f"{folder}/log", "w")  # noqa: SIM115
    stream.close()
    assert not os.path.exists(folder)
