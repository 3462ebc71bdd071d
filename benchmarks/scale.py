"""Captions shard by shard: two workers against one, one worker against the plain command, many shards against few.

All are whole processes that caption the same tars of photographs; a worker has one thread, as in a full machine.
"""

from __future__ import annotations

import itertools
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.images import PHOTO, make_images
from benchmarks.measure import Measurement, compare, run_command, seconds
from benchmarks.memory import compare_memory
from benchmarks.startup import captioner_command

SPEEDUP, MEMORY = 1.8, 1.1
ONE_THREAD = ["env", "OMP_NUM_THREADS=1"]


def measure(
    count: int = 1200, shards: int = 8, many: int = 1000, rounds: int = 3, photo: Path = PHOTO, model: str = "default"
) -> list[Measurement]:
    """Ratios of images a second, of memory, and of the time that finished shards take."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = make_images(root / "images", count // shards, photo)
        write_tars(root / "large", images, shards)
        write_tars(root / "small", images[:1], many)
        outputs = (str(root / f"out{number}") for number in itertools.count())

        def command(source: str, workers: int, output: str) -> list[str]:
            options = ["--engine", "local", "--workers", str(workers), "-o", output, "--model", model]
            return [*ONE_THREAD, *captioner_command(), "caption", str(root / source), *options]

        def speed(workers: int) -> Callable[[], float]:
            return lambda: count / seconds(lambda: run_command(command("large/*.tar", workers, next(outputs))))

        def plain() -> float:
            names = [str(image) for _ in range(shards) for image in images]
            return count / seconds(lambda: run_command([*ONE_THREAD, *captioner_command(), "caption", *names]))

        few = command("small/{0000..0009}.tar", 1, next(outputs))
        all_of_them = command("small/*.tar", 1, next(outputs))
        memory = compare_memory(f"memory of {many} shards over 10", all_of_them, few, MEMORY)
        return [
            compare("2 workers over 1", "images/s", speed(2), speed(1), rounds=rounds, target=SPEEDUP),
            compare("1 worker over the plain command", "images/s", speed(1), plain, rounds=rounds),
            memory,
            compare(  # both are finished now
                f"{many} finished shards over 10",
                "s",
                lambda: seconds(lambda: run_command(all_of_them)),
                lambda: seconds(lambda: run_command(few)),
                rounds=rounds,
            ),
        ]


def write_tars(folder: Path, images: list[Path], count: int) -> None:
    """``count`` tars of the same images, 0000.tar and on."""
    folder.mkdir()
    for number in range(count):
        with tarfile.open(folder / f"{number:04}.tar", "w") as tar:
            for image in images:
                tar.add(image, image.name)
