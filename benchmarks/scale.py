"""Captions shard by shard: two workers compared with one, Ray with local processes, many shards with few.

All are whole processes that caption the same tars of photos; a worker has one thread, as on a fully used machine. Their
images/s are measured from the start of the first shard to the end of the last one, by the shards' statistics; the
seconds before are rows of their own. One worker alone opens images on other cores than its network's, so it is also
measured on one core.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.images import PHOTO, make_images
from benchmarks.measure import Measurement, compare, once, rate, run_command, seconds
from benchmarks.memory import compare_memory
from benchmarks.startup import captioner_command

SPEEDUP, RAY, MEMORY = 1.8, 0.9, 1.1
ONE_THREAD = ["env", "OMP_NUM_THREADS=1"]


def measure(
    count: int = 1200, shards: int = 8, many: int = 1000, rounds: int = 3, photo: Path = PHOTO, model: str = "default"
) -> list[Measurement]:
    """Ratios of images per second, of memory, and of the time that finished shards take."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = write_images(root, count, shards, photo)
        write_tars(root / "small", images[:1], many)
        names = [str(image) for _ in range(shards) for image in images]
        plain = rate(count, lambda: run_command([*ONE_THREAD, *captioner_command(), "caption", *names]))
        whole = rate(count, lambda: run_command(command(root, "large/*.tar", model)))
        few = command(root, "small/{0000..0009}.tar", model)
        all_of_them = command(root, "small/*.tar", model)
        memory = compare_memory(f"memory of {many} shards over 10", all_of_them, few, MEMORY)
        return [
            compare(
                "2 workers over 1", "images/s", Run(root, model, 2), Run(root, model), rounds=rounds, target=SPEEDUP
            ),
            compare("1 worker over the plain command", "images/s", whole, plain, rounds=rounds),
            memory,
            compare(  # both are finished now
                f"{many} finished shards over 10",
                "s",
                lambda: seconds(lambda: run_command(all_of_them)),
                lambda: seconds(lambda: run_command(few)),
                rounds=rounds,
            ),
        ]


def measure_engines(
    count: int = 2400, shards: int = 16, rounds: int = 3, photo: Path = PHOTO, model: str = "default"
) -> list[Measurement]:
    """Ratios of images per second: Ray over local processes, and two workers over one, each with a single core."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, count, shards, photo)
        if find_spec("ray"):
            ray, local = Run(root, model, 2, engine="ray"), Run(root, model, 2)
            rows.append(compare("ray over local", "images/s", ray, local, rounds=rounds, target=RAY))
            rows.append(once("start of ray over local", "s", median(ray.starts), median(local.starts)))
        if shutil.which("taskset") and len(os.sched_getaffinity(0)) > 1:
            two, one = (Run(root, model, cores, cores=cores) for cores in (2, 1))
            name = "2 workers on 2 cores over 1 on 1"
            rows.append(compare(name, "images/s", two, one, rounds=rounds, target=SPEEDUP))
    return rows


@dataclass
class Run:
    """A command that captions the large tars, into a new folder each time."""

    root: Path
    model: str
    workers: int = 1
    engine: str = "local"
    cores: int = 0
    starts: list[float] = field(default_factory=list)
    """Seconds before the first shard in each call."""

    def __call__(self) -> float:
        """Images per second from the beginning of the first shard to the end of the last one."""
        began = time.time()
        line = command(self.root, "large/*.tar", self.model, self.workers, self.engine, self.cores)
        run_command(line)
        stats = [json.loads(path.read_bytes()) for path in Path(line[line.index("-o") + 1]).glob("0*.json")]
        first = min(one["began"] for one in stats)
        self.starts.append(first - began)
        return float(
            sum(one["images"] for one in stats) / (max(one["began"] + one["seconds"] for one in stats) - first)
        )


def command(root: Path, source: str, model: str, workers: int = 1, engine: str = "local", cores: int = 0) -> list[str]:
    """A command that captions tars into a folder of its own, on the first ``cores`` or, with 0, on all."""
    bound = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))] if cores else []
    options = ["--engine", engine, "--workers", str(workers), "-o", tempfile.mkdtemp(dir=root), "--model", model]
    return [*bound, *ONE_THREAD, *captioner_command(), "caption", str(root / source), *options]


def write_images(root: Path, count: int, shards: int, photo: Path) -> list[Path]:
    """Write ``count`` images in ``shards`` large tars; returns the images of one tar."""
    images = make_images(root / "images", count // shards, photo)
    write_tars(root / "large", images, shards)
    return images


def write_tars(folder: Path, images: list[Path], count: int) -> None:
    """Write ``count`` tars with the same images, 0000.tar and on."""
    folder.mkdir()
    for number in range(count):
        with tarfile.open(folder / f"{number:04}.tar", "w") as tar:
            for image in images:
                tar.add(image, image.name)
