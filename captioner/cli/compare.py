"""``captioner compare``: significance tests between systems."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from captioner.cli import scoring_options as options
from captioner.errors import UsageError, warn
from captioner.text.tokenizers import DEFAULT


def compare(
    references: options.References,
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Captions of each system, as for captioner score; the first is the baseline."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILES",
            help="Several runs of one system: files separated by commas, or a glob: 4f=runs/4f-*/test.json",
        ),
    ] = None,
    data_format: options.Format = "",
    split: options.Split = "",
    missing: options.Missing = "error",
    metrics: Annotated[
        str, typer.Option(help="Some of bleu, cider, rouge, meteor, spice, separated by commas.")
    ] = "bleu,cider,rouge",
    tokenizer: options.Tokenizer = DEFAULT,
    df: options.DocumentFrequencies = None,
    resamples: Annotated[int, typer.Option(min=40, max=100_000, help="Bootstrap resamples.")] = 1000,
    trials: Annotated[
        int, typer.Option(min=0, max=100_000, help="Trials of approximate randomization; 0 skips the test.")
    ] = 10000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    latex: options.Latex = False,
    markdown: options.Markdown = False,
) -> None:
    """Compare systems on the same images: scores, 95 % intervals and p-values.

    All systems are compared with the first one.

    Uses paired bootstrap resampling and approximate randomization over images, with the formulas, numbers of samples
    and seed of sacreBLEU (SACREBLEU_SEED, 12345 by default). A p-value below 0.05, marked *, means that the choice of
    images is unlikely to explain the difference. It says nothing about other training seeds. To account for them, give
    several runs of a system as a --group: its score is then their mean, with their standard deviation.
    """
    style = options.table_style(as_json, latex, markdown)
    files = _systems(results or [], group or [])
    from captioner.data.results import read_captions, read_systems, same_images
    from captioner.metrics import References, report
    from captioner.metrics.cider import DocumentFrequency
    from captioner.metrics.significance import compare_systems, default_seed

    paths = [path for members in files.values() for path in members]
    matched, _ = read_systems(paths, references, data_format, split, missing, warn)
    first = same_images(matched)
    captions = {path: one.hypotheses for path, one in zip(paths, matched, strict=True)}
    scorer = References(first.references, tokenizer, **first.metadata)
    frequency = None if df is None else DocumentFrequency.of_references(read_captions(df), scorer.tokenize, df.stem)
    selected = report.select_metrics(metrics, frequency)
    scored = {name: [scorer.score(captions[path], selected) for path in members] for name, members in files.items()}
    estimates = compare_systems(scored, resamples=resamples, trials=trials)
    test = f"bs:{resamples}|ar:{trials}|seed:{default_seed()}"
    signatures = [f"{line}|{test}" for line in report.signature_lines(next(iter(scored.values()))[0].scores)]
    if as_json:
        print(report.comparison_json(estimates, signatures))
    else:
        print(report.comparison_table(estimates, signatures, style))


def _systems(results: Sequence[Path], groups: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each system by its name; systems of a single file come first."""
    systems = {str(path): [path] for path in results}
    for text in groups:
        name, sign, listed = text.partition("=")
        paths = [path for part in listed.split(",") if part for path in _files(part)]
        if not sign or not name or not paths:
            raise UsageError(f"--group {text}: expected NAME=FILE,FILE or NAME=GLOB")
        if name in systems:
            raise UsageError(f"--group {text}: two systems have this name; choose another one")
        systems[name] = paths
    every = [path for paths in systems.values() for path in paths]
    if len(set(every)) < len(every) or len(systems) < len(results) + len(groups):
        raise UsageError("a file is given twice; give each file once")
    if len(systems) < 2:
        raise UsageError("give at least two systems to compare: files of captions, or a --group of files")
    return systems


def _files(part: str) -> list[Path]:
    """The files that match a path or glob."""
    found = [Path(part)] if Path(part).exists() or not glob.has_magic(part) else [*map(Path, sorted(glob.glob(part)))]
    if not found:
        raise UsageError(f"no file matches {part}")
    return found
