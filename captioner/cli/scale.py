"""``captioner caption`` and ``captioner extract`` on shards: their options, and the run on an engine."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from captioner.cli.options import expand
from captioner.errors import UsageError, counted, print_error, printable
from captioner.progress import progress_bar

if TYPE_CHECKING:
    from captioner.scale.job import Job, Outcome
    from captioner.scale.shards import Plan, Shard

TRIAL = 64
"""Images that --dry-run captions to estimate the time."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class ScaleOptions:
    """The values of the options below, whose help texts describe them."""

    engine: str | None
    workers: int
    column: str
    shard_size: int
    output_format: str
    max_shard_retries: int
    ray_address: str | None

    def check_unused(self) -> None:
        """Raise ``UsageError`` if an option is given that only an engine uses."""
        if self != _options():
            raise UsageError(
                "--workers, --column, --shard-size, --output-format, --max-shard-retries and --ray-address are for "
                "tars and tables; for images name an engine too, such as --engine local"
            )

    def takes(self, sources: Sequence[str]) -> bool:
        """Whether the sources are processed shard by shard: an engine is named, or a source is a tar or table."""
        if self.engine is not None:
            return True
        from captioner.scale.shards import is_shard_source

        return any(is_shard_source(source) for source in sources)


def _options(
    *,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="local|ray|slurm|torchrun",
            help="Work shard by shard into the folder -o: in processes on this machine, in Ray actors, or as one of "
            "several processes of a scheduler.  [default: local for tars and tables]",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Processes of --engine local, or actors of --engine ray.")
    ] = 1,
    column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of Parquet, CSV or JSON lines with paths or bytes of images.")
    ] = "path",
    shard_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images or rows per shard; each tar is one shard.")
    ] = 1000,
    output_format: Annotated[
        str, typer.Option(metavar="jsonl|parquet", help="Format of the captions that an engine writes.")
    ] = "jsonl",
    max_shard_retries: Annotated[
        int, typer.Option(min=0, metavar="N", help="How often an engine retries a failed shard.")
    ] = 2,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Cluster for --engine ray.  [default: $RAY_ADDRESS, else this machine]"),
    ] = None,
) -> ScaleOptions:
    return ScaleOptions(engine, workers, column, shard_size, output_format, max_shard_retries, ray_address)


def scale_options(command: Callable[..., Result], without: Sequence[str] = ()) -> Callable[..., Result]:
    """Replace a command's parameter ``scale`` by the options above; the command gets ``ScaleOptions``.

    Options in ``without``, which the command already has, keep their defaults.
    """
    hints = get_type_hints(_options, include_extras=True)
    known = inspect.signature(_options).parameters
    options = [one.replace(annotation=hints[name]) for name, one in known.items() if name not in without]
    return expand(command, "scale", options, _options)


def run_shards(
    work: str,
    options: Mapping[str, Any],
    sources: Sequence[str],
    scale: ScaleOptions,
    output: Path | None,
    dry_run: bool = False,
) -> None:
    """Process ``sources`` on an engine; ``options`` are arguments of the work (of ``captioner.scale.job``).

    Raises ``typer.Exit`` if something failed.
    """
    from captioner.registry import resolve
    from captioner.scale.engines import ENGINES
    from captioner.scale.job import WORKS, Job, start_run
    from captioner.scale.outputs import check_format
    from captioner.scale.shards import make_plan

    if output is None:
        raise UsageError("the results of shards go into a folder; name it with -o")
    if scale.ray_address and scale.engine != "ray":
        raise UsageError("--ray-address is for --engine ray")
    check_format(scale.output_format)
    run = resolve(ENGINES, scale.engine or "local", "engine", UsageError)
    if scale.ray_address:
        run = partial(run, address=scale.ray_address)
    place = re.sub(r"^(\w[\w+.-]+):/(?!/)", r"\1://", str(output))  # Path drops one / of s3://
    plan = make_plan(sources, scale.column, scale.shard_size)
    for error in plan.errors:
        print_error(f"error: {error}")
    if not plan.shards:
        raise UsageError("no images, tars or tables were found")
    settings = resolve(WORKS, work, "work")(**options).settings()
    job = Job(work, options, settings, place, scale.output_format, scale.max_shard_retries)
    if dry_run:
        _show(plan, job)
        return
    waiting = start_run(job, plan.shards)
    outcomes = _run(run, job, waiting, scale.workers, len(plan.shards))
    _report(outcomes, len(plan.shards) - len(waiting), place)
    if plan.errors or any(one.stats is None or one.stats["failed"] for one in outcomes):
        raise typer.Exit(1)


def _run(run: Callable[..., None], job: Job, waiting: Sequence[Shard], workers: int, total: int) -> list[Outcome]:
    """The outcome of each shard that the engine processed."""
    outcomes: list[Outcome] = []
    with progress_bar("shards", total, done=total - len(waiting)) as bar:

        def report(outcome: Outcome) -> None:
            outcomes.append(outcome)
            bar.advance()
            if outcome.error:
                bar.say(f"error: shard {outcome.shard.name} ({outcome.shard.source}): {outcome.error}")

        run(job, waiting, workers, report)
    return outcomes


def _report(outcomes: Sequence[Outcome], before: int, place: str) -> None:
    stats = [one.stats for one in outcomes if one.stats is not None]
    images, failed = (sum(one[name] for one in stats) for name in ("images", "failed"))
    parts = [counted(len(stats), "shard") + " done", f"{before} done before", f"{len(outcomes) - len(stats)} failed"]
    print_error(f"{place}: {', '.join(parts)}; {counted(images, 'image')} done, {failed} failed")


def _show(plan: Plan, job: Job) -> None:
    """Print the shards, and the time they may take, estimated from the speed for a few images."""
    from captioner.scale.estimate import estimate

    for shard in plan.shards:
        size = "" if shard.count is None else counted(shard.count, "image")
        rows = f"rows from {shard.first}" if shard.kind == "table" else ""
        print("\t".join((shard.name, shard.kind, printable(shard.source), size, rows)).rstrip())
    began = time.monotonic()
    found = estimate(plan.shards, job.open(), TRIAL)
    if found is not None:
        print_error(
            f"{counted(len(plan.shards), 'shard')}, about {found.images:,} images; {found.seconds:,.0f} s with one "
            f"worker at {found.rate:.1f} images/s, measured on {counted(found.tried, 'image')} in "
            f"{time.monotonic() - began:.1f} s. Nothing was written"
        )
