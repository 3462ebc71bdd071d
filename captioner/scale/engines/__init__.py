"""Engines, which process the shards of a run. Each is a function ``run(job, shards, workers, report)``."""

from __future__ import annotations

ENGINES = {
    "local": "captioner.scale.engines.local:run",
    "ray": "captioner.scale.engines.ray:run",
    "slurm": "captioner.scale.engines.ranks:run_slurm",
    "torchrun": "captioner.scale.engines.ranks:run_torchrun",
}
"""Local processes, Ray actors, or this process as one of several that a scheduler starts."""
