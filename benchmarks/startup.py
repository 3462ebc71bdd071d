"""One caption from the command line, compared with ``python -c "import torch"``.

Both are whole processes in the same environment, with warm file caches.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.images import PHOTO, find_photo
from benchmarks.measure import AT_MOST, Measurement, compare, run_command, seconds

TARGET = 0.35


def measure(rounds: int = 7, warm_up: bool = True, photo: Path = PHOTO, model: str = "default") -> list[Measurement]:
    """Seconds of ``captioner caption photo.jpg`` over those of importing torch."""
    caption = [*captioner_command(), "caption", str(find_photo(photo)), "--model", model]
    bare = [sys.executable, "-c", "import torch"]
    return [
        compare(
            "captioner caption over import torch",
            "s",
            lambda: seconds(lambda: run_command(caption)),
            lambda: seconds(lambda: run_command(bare)),
            rounds=rounds,
            warm_up=warm_up,
            target=TARGET,
            direction=AT_MOST,
        )
    ]


def captioner_command() -> list[str]:
    """This environment's command; ``python -m captioner`` if the package is not installed."""
    script = shutil.which("captioner", path=str(Path(sys.executable).parent))
    return [script] if script else [sys.executable, "-m", "captioner"]
