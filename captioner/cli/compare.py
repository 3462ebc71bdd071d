"""``captioner compare``: whether systems differ by more than the choice of images."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captioner.cli.score import (
    DF,
    FORMAT,
    LATEX,
    MARKDOWN,
    MISSING,
    REFERENCES,
    SCALE,
    SPLIT,
    TOKENIZER,
    choose_metrics,
    choose_style,
    prepare,
    read_systems,
    signatures,
)
from captioner.cli.table import footnote, render
from captioner.errors import UsageError
from captioner.text.tokenizers import DEFAULT

if TYPE_CHECKING:
    from captioner.metrics.significance import Estimate

CERTAIN = 0.05


def compare(
    references: Annotated[list[Path], REFERENCES],
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Captions of each system, as for captioner score; the first is the baseline."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILES",
            help="One system run several times, with commas between the files or a glob: 4f=runs/4f-*/test.json",
        ),
    ] = None,
    data_format: Annotated[str, FORMAT] = "",
    split: Annotated[str, SPLIT] = "",
    missing: Annotated[str, MISSING] = "error",
    metrics: Annotated[
        str, typer.Option(help="Some of bleu, cider, rouge, meteor, spice, with commas between.")
    ] = "bleu,cider,rouge",
    tokenizer: Annotated[str, TOKENIZER] = DEFAULT,
    df: Annotated[Path | None, DF] = None,
    resamples: Annotated[int, typer.Option(min=40, help="Bootstrap resamples.")] = 1000,
    trials: Annotated[int, typer.Option(min=0, help="Trials of approximate randomization; 0 leaves it out.")] = 10000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    latex: Annotated[bool, LATEX] = False,
    markdown: Annotated[bool, MARKDOWN] = False,
) -> None:
    """Compare systems on the same images: scores with 95 % intervals, and p-values against the first.

    Paired bootstrap resampling and approximate randomization over images, with the formulas, numbers of draws and
    seed of sacreBLEU (SACREBLEU_SEED, 12345 by default). A p-value below 0.05, marked *, says that the choice of
    images hardly explains the difference; it says nothing about another training seed. For that, give several runs
    of a system as a --group: its score is their mean, with their standard deviation behind it.
    """
    style = choose_style(as_json, latex, markdown)
    files = _systems(results or [], group or [])
    from captioner.metrics.significance import compare_systems, default_seed

    every = [path for paths in files.values() for path in paths]
    matched, records = read_systems(every, references, data_format, split, missing)
    by_path = dict(zip(every, matched, strict=True))
    first = matched[0]
    if any(one.references.keys() != first.references.keys() for one in matched):
        raise UsageError(
            "the systems have captions of different images; --missing empty counts what is missing as empty"
        )
    prepared = prepare(first, records, tokenizer)
    chosen = choose_metrics(metrics, df, prepared)
    scored = {
        name: [prepared.score(by_path[path].hypotheses, chosen) for path in paths] for name, paths in files.items()
    }
    found = compare_systems(scored, resamples=resamples, trials=trials)
    test = f"bs:{resamples}|ar:{trials}|seed:{default_seed()}"
    signed = [f"{line}|{test}" for line in signatures(scored[next(iter(files))][0].scores)]
    print(_as_json(found, signed) if as_json else _table(found, signed, style))


def _systems(results: Sequence[Path], groups: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each system by its name, single ones first."""
    systems = {str(path): [path] for path in results}
    for text in groups:
        name, sign, listed = text.partition("=")
        paths = [path for part in listed.split(",") if part for path in _files(part)]
        if not sign or not name or not paths:
            raise UsageError(f"--group {text}: expected NAME=FILE,FILE or NAME=GLOB")
        if name in systems:
            raise UsageError(f"--group {text}: a second system of that name")
        systems[name] = paths
    every = [path for paths in systems.values() for path in paths]
    if len(set(every)) < len(every) or len(systems) < len(results) + len(groups):
        raise UsageError("a file is given twice")
    if len(systems) < 2:
        raise UsageError("give at least two systems to compare: files of captions, or groups of them")
    return systems


def _files(part: str) -> list[Path]:
    """The files that a path or glob names."""
    found = [Path(part)] if Path(part).exists() or not glob.has_magic(part) else [*map(Path, sorted(glob.glob(part)))]
    if not found:
        raise UsageError(f"no file matches {part}")
    return found


def _table(found: Mapping[str, Mapping[str, Estimate]], signed: Sequence[str], style: str) -> str:
    base, *_ = found
    header = ["score", "system", "value", "95 % interval", "difference", "p bootstrap", "p randomized"]
    rows = []
    for score in found[base]:
        for system, scores in found.items():
            one = scores[score]
            value = f"{one.score:.2f}" + (f" ± {one.spread:.2f}" if one.spread is not None else "")
            difference = "" if system == base else f"{one.score - found[base][score].score:+.2f}"
            interval = f"{one.low:.2f} to {one.high:.2f}"
            rows.append([score, system, value, interval, difference, _p(one.p_bootstrap), _p(one.p_randomized)])
    lines = [f"{SCALE}; differences and p-values against {base}; * p < {CERTAIN}"]
    runs = {name: next(iter(scores.values())).runs for name, scores in found.items()}
    if max(runs.values()) > 1:
        several = ", ".join(f"{name} {number}" for name, number in runs.items())
        lines.append(f"± is the standard deviation over a system's runs: {several}")
    return "\n".join([render(header, rows, 2, style), "", *(footnote(line, style) for line in [*lines, *signed])])


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}{'*' if value < CERTAIN else ' '}"


def _as_json(found: Mapping[str, Mapping[str, Estimate]], signed: Sequence[str]) -> str:
    systems = {
        system: {score: dataclasses.asdict(estimate) for score, estimate in scores.items()}
        for system, scores in found.items()
    }
    return json.dumps({"baseline": next(iter(found)), "systems": systems, "signatures": list(signed)})
