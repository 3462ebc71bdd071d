"""captioner score: captions in COCO results form against the references of a data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.errors import DataError, UsageError

if TYPE_CHECKING:
    from captioner.data.records import Record
    from captioner.metrics import Score


def score(
    results: Annotated[Path, typer.Argument(help='Captions: [{"image_id": ..., "caption": ...}, ...].')],
    references: Annotated[
        Path, typer.Option("--references", "-r", metavar="REF", help="COCO or Karpathy JSON, or the data set's folder.")
    ],
    data_format: Annotated[
        str, typer.Option("--format", help="flickr8k, flickr30k, karpathy, coco or own.  [default: what the file is]")
    ] = "",
    split: Annotated[str, typer.Option(help="Only this part: train, val or test.  [default: all]")] = "",
    metrics: Annotated[str, typer.Option(help="bleu, cider or both, with a comma between.")] = "bleu,cider",
    tokenizer: Annotated[str, typer.Option(help="Tokeniser of captions and references.")] = "plain",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Score captions: corpus BLEU-1 to 4 (percent) and CIDEr-D, as coco-caption defines them.

    A result belongs to the picture with that file name or numeric id. Pictures without a result are left out; a result
    without references is left out too, and makes the exit status 1.
    """
    from captioner.data import read_dataset
    from captioner.data.records import of_split
    from captioner.metrics import score_captions

    captions = read_results(results)
    records = read_dataset(data_format or _guess(references), references)
    hypotheses, chosen, unknown = match(captions, of_split(records, split) if split else records)
    _report(unknown, len(hypotheses), len(chosen), references)
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    if not names:
        raise UsageError("--metrics names no metric; give bleu, cider or bleu,cider")
    scores = score_captions(hypotheses, {key: chosen[key] for key in hypotheses}, names, tokenizer)
    if len(hypotheses) == 1 and "cider" in names:
        print("note: CIDEr-D over one picture is 0 by definition: no word is rarer than another", file=sys.stderr)
    print(_as_json(scores) if as_json else _table(scores))
    if unknown:
        raise typer.Exit(1)


def read_results(path: Path) -> dict[str, str]:
    """Captions by picture of a results file; ``DataError`` names the entry that is wrong."""
    from captioner.data.karpathy import load_json

    entries = load_json(path)
    if not isinstance(entries, list):
        raise DataError(f'{path}: expected a list of {{"image_id": ..., "caption": ...}}')
    captions: dict[str, str] = {}
    for index, entry in enumerate(entries):
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("caption"), str)
            or not _is_id(entry.get("image_id"))
        ):
            raise DataError(f"{path}, entry {index}: needs image_id (a number or name) and caption (a text)")
        key = str(entry["image_id"])
        if key in captions:
            raise DataError(f"{path}, entry {index}: a second caption for {key}; keep one a picture")
        captions[key] = entry["caption"]
    if not captions:
        raise DataError(f"{path}: holds no captions")
    return captions


def match(
    captions: dict[str, str], records: Iterable[Record]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]], list[str]]:
    """Captions by the records' ids, references by the same ids, and the results that fit no record.

    Names fit whole, then as the last part of a path; numbers fit ``Record.number``.
    """
    references = {record.image_id: record.captions for record in records if record.captions}
    known = {PurePosixPath(name).name: name for name in references}
    known |= {str(record.number): record.image_id for record in records if record.number is not None}
    known |= {name: name for name in references}
    hypotheses: dict[str, str] = {}
    unknown = []
    for key, caption in captions.items():
        found = known.get(key) or known.get(PurePosixPath(key).name)
        if found is None or found not in references:
            unknown.append(key)
        elif found in hypotheses:
            raise DataError(f"two results are of the picture {found}; keep one")
        else:
            hypotheses[found] = caption
    if not hypotheses:
        raise DataError(
            f"no result has references: results are of pictures such as {next(iter(captions))}, "
            f"references of {next(iter(references), 'none')}; is it the right data set and split?"
        )
    return hypotheses, references, unknown


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


def _guess(references: Path) -> str:
    """The format of a references file from its suffix and first keys."""
    from captioner.data import READERS
    from captioner.data.karpathy import load_json

    if references.suffix in (".tsv", ".jsonl"):
        return "own"
    if not references.is_file():
        if not references.exists():
            raise DataError(f"{references}: no such file or folder")
        raise UsageError(f"{references} is a folder: say what it is with --format: {', '.join(READERS)}")
    content = load_json(references)
    if isinstance(content, dict) and "annotations" in content:
        return "coco"
    if isinstance(content, dict) and "images" in content:
        return "karpathy"
    raise DataError(
        f"{references}: neither COCO annotations nor a Karpathy dataset_*.json; say what it is with --format"
    )


def _report(unknown: list[str], scored: int, there: int, references: Path) -> None:
    if unknown:
        names = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        total = scored + len(unknown)
        print(f"error: {references} has no references for {len(unknown)} of {total} results: {names}", file=sys.stderr)
    if scored < there:
        print(f"note: {there - scored} of {there} pictures have no result and are left out", file=sys.stderr)


def _rows(scores: list[Score]) -> list[tuple[str, str]]:
    """BLEU's orders and each metric's value, as printed."""
    rows = []
    for item in scores:
        orders = {name: value for name, value in item.parts.items() if name.startswith("BLEU-")}
        rows += [(name, f"{value:.2f}") for name, value in orders.items()]
        if not orders:
            rows.append((item.name, f"{item.value:.4f}"))
    return rows


def _table(scores: list[Score]) -> str:
    lines = [f"{name:<10}{value:>8}" for name, value in _rows(scores)]
    return "\n".join([*lines, "", *(f"{item.name}|{item.signature}" for item in scores)])


def _as_json(scores: list[Score]) -> str:
    return json.dumps({item.name: {"value": item.value, "signature": item.signature, **item.parts} for item in scores})
