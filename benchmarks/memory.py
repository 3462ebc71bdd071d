"""Peak memory of ``captioner caption`` on many images, compared with a third of them: it should not grow with their
number. Both are whole processes with the command's own batch size, and enough images to fill the pipeline.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.images import PHOTO, make_images
from benchmarks.measure import AT_MOST, Measurement, once, run_command
from benchmarks.startup import captioner_command

TARGET = 1.1
ONE = 200e6 / 2**20  # MiB
UNIT = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in MiB: bytes there, KiB elsewhere
# A process inherits the peak of the one that started it, so a small one must start it.
LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def measure(count: int = 1500, photo: Path = PHOTO, model: str = "default") -> list[Measurement]:
    """Peak memory of captioning ``count`` images over that of a third of them, and of one over 200 MB."""
    caption, by = [*captioner_command(), "caption"], ["--model", model]
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        images = make_images(few, max(1, count // 3), photo)
        many.mkdir()
        for number in range(count):
            os.link(images[number % len(images)], many / f"{number:06}.jpg")
        return [
            compare_memory(
                f"memory of {count} captions over {len(images)}",
                [*caption, str(many), *by],
                [*caption, str(few), *by],
                TARGET,
            ),
            once(
                "memory of one caption over 200 MB",
                "MiB",
                peak_memory([*caption, str(images[0]), *by]),
                ONE,
                target=1,
                direction=AT_MOST,
            ),
        ]


def compare_memory(benchmark: str, ours: Sequence[str], baseline: Sequence[str], target: float) -> Measurement:
    """The peak memory of one command over that of another, which hardly changes from run to run."""
    return once(benchmark, "MiB", peak_memory(ours), peak_memory(baseline), target, AT_MOST)


def peak_memory(command: Sequence[str]) -> float:
    """The most memory, in MiB, that a command uses at any moment; of several processes, that of the largest."""
    return int(run_command([sys.executable, "-c", LAUNCHER, *command])) / UNIT
