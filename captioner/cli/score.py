"""``captioner score``: captions of images against their references."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captioner.cli.table import footnote, render
from captioner.errors import UsageError
from captioner.text.tokenizers import DEFAULT

if TYPE_CHECKING:
    from captioner.data.records import Captioned
    from captioner.data.results import Matched
    from captioner.metrics import References, Score, Scored
    from captioner.metrics.base import Metric

SCALE = "percent: 0 to 100, CIDEr-D up to 1000"
REFERENCES = typer.Option(
    "--references",
    "-r",
    metavar="REF",
    help="COCO or Karpathy JSON, JSON lines, image<TAB>caption, or a data set's folder; for plain results text "
    "files with one caption a line, each a reference (repeat the option).",
)
FORMAT = typer.Option("--format", help="flickr8k, flickr30k, karpathy, coco or own.  [default: what the file is]")
SPLIT = typer.Option(help="Only this part of the references: train, val or test.  [default: all]")
MISSING = typer.Option(
    metavar="HOW",
    help="Images without a caption (or with null): error; skip leaves them out, and captions without references; "
    "empty counts them as empty captions.",
)
TOKENIZER = typer.Option(help="Tokenizer of captions and references; ptb is coco-caption's.")
DF = typer.Option(
    "--df",
    metavar="REF",
    help="References among which CIDEr-D counts words, such as COCO's.  [default: those that are scored against]",
)
MARKDOWN = typer.Option("--markdown", help="Print the table as Markdown.")
LATEX = typer.Option("--latex", help="Print the table as LaTeX.")


def score(
    results: Annotated[
        Path,
        typer.Argument(help="Captions: COCO results, JSON lines, image<TAB>caption, or one a line."),
    ],
    references: Annotated[list[Path], REFERENCES],
    data_format: Annotated[str, FORMAT] = "",
    split: Annotated[str, SPLIT] = "",
    missing: Annotated[str, MISSING] = "error",
    metrics: Annotated[
        str, typer.Option(help="Some of bleu, cider, rouge, meteor, spice, with commas between.  [default: all]")
    ] = "",
    tokenizer: Annotated[str, TOKENIZER] = DEFAULT,
    df: Annotated[Path | None, DF] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="REF",
            help="Training captions, for the share of new ones.  [default: the data set's, if it has some]",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object: value in percent, fraction as coco-caption prints it."),
    ] = False,
    per_image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each image's scores there, one JSON object a line.")
    ] = None,
    latex: Annotated[bool, LATEX] = False,
    markdown: Annotated[bool, MARKDOWN] = False,
) -> None:
    """Score captions as coco-caption does, without Java: BLEU-1 to 4, CIDEr-D, ROUGE-L; all in percent.

    METEOR 1.5 and SPICE are the authors' Java programs and come with pip install 'captioner[java]'; where they cannot
    run they are left out, and a line on stderr says why. Behind the scores stand the share of distinct captions, of
    captions that are new (equal to no training caption) and of the references' words that were used, and the length.

    A result belongs to the image with that file name or numeric id. What does not match is an error; --missing has
    the other choices.
    """
    style = choose_style(as_json, latex, markdown)
    [matched], records = read_systems([results], references, data_format, split, missing)
    from captioner.metrics.diversity import diversity

    prepared = prepare(matched, records, tokenizer)
    chosen = choose_metrics(metrics, df, prepared)
    scored = prepared.score(matched.hypotheses, chosen, on_missing=None if metrics else _note)
    tokens = [prepared.tokenize(text) for text in matched.hypotheses.values()]
    training = [prepared.tokenize(text) for text in _training(train, records, split)]
    variety = diversity(tokens, list(prepared.tokens.values()), training)
    if per_image is not None:
        _write_images(per_image, scored, matched.hypotheses)
    print(_as_json(scored, variety) if as_json else _table(results, scored, variety, style))


def read_systems(
    results: Sequence[Path], references: Sequence[Path], data_format: str, split: str, missing: str
) -> tuple[list[Matched], list[Captioned]]:
    """Each results file matched with the references of the split, and the references of all splits.

    Doubts are told on stderr.
    """
    from captioner.data.records import of_split
    from captioner.data.results import match, read_references, read_results

    read = [read_results(path) for path in results]
    records = read_references(references, data_format, read[0].aligned)
    chosen = of_split(records, split) if split else records
    found = [match(one, chosen, missing) for one in read]
    for note in dict.fromkeys(note for one in found for note in one.notes):
        _note(note)
    return found, records


def prepare(matched: Matched, records: Iterable[Captioned], tokenizer: str) -> References:
    """The references, tokenized, with the split and what was left out in their signature."""
    from captioner.metrics import References

    splits = sorted({r.split for r in records if r.split and r.image_id in matched.references})
    facts = {"split": "+".join(splits)} if splits else {}
    return References(matched.references, tokenizer, **facts, **matched.facts)


def choose_metrics(names: str, df: Path | None, references: References) -> list[str | Metric]:
    """The metrics of ``--metrics``, all by default; CIDEr-D with the document frequencies of ``--df``."""
    from captioner.metrics import METRICS

    chosen: list[str | Metric] = [name.strip() for name in names.split(",") if name.strip()] or list(METRICS)
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"--metrics {names}: names a metric twice")
    if df is None:
        return chosen
    from captioner.data.results import read_references
    from captioner.metrics.base import digest
    from captioner.metrics.cider import CiderD, Rarity

    captions = {record.image_id: record.captions for record in read_references([df])}
    documents = [[references.tokenize(text) for text in texts] for texts in captions.values()]
    rarity = Rarity(documents, f"{df.stem}-{digest(captions)}")
    return [CiderD(rarity) if name == "cider" else name for name in chosen]


def choose_style(as_json: bool, latex: bool, markdown: bool) -> str:
    """The style of ``captioner.cli.table``; ``UsageError`` for two at once."""
    if as_json + latex + markdown > 1:
        raise UsageError("choose one of --json, --latex and --markdown")
    return "latex" if latex else "markdown" if markdown else "plain"


def signatures(scores: Mapping[str, Score]) -> list[str]:
    """``BLEU-1,BLEU-2|images:...``: a line for each signature, with the scores that it is of."""
    names: dict[str, list[str]] = {}
    for name, item in scores.items():
        names.setdefault(item.signature, []).append(name)
    return [f"{','.join(found)}|{signature}" for signature, found in names.items()]


def _training(train: Path | None, records: Sequence[Captioned], split: str) -> list[str]:
    """Training captions: those of a file, else of the data set's train split when another one is scored."""
    from captioner.data.records import split_name
    from captioner.data.results import read_references

    if train is not None:
        return [t for r in read_references([train]) if r.split in ("train", "") for t in r.captions]
    if not split or split_name(split, "--split") == "train":
        return []
    return [text for record in records if record.split == "train" for text in record.captions]


def _write_images(path: Path, scored: Scored, captions: Mapping[str, str]) -> None:
    from captioner.files import write_text

    scores = {name: values.tolist() for name, values in scored.of_images().items()}
    lines = [
        json.dumps({"image": image, "caption": captions[image], **{name: values[n] for name, values in scores.items()}})
        for n, image in enumerate(scored.images)
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _table(results: Path, scored: Scored, variety: Mapping[str, float], style: str) -> str:
    header = ["", *scored.scores]
    row = [results.stem, *(f"{item.value:.2f}" for item in scored.scores.values())]
    return "\n".join(
        [
            render(header, [row], style=style),
            "",
            footnote(SCALE, style),
            footnote(describe(variety), style),
            *(footnote(line, style) for line in signatures(scored.scores)),
        ]
    )


def describe(variety: Mapping[str, float]) -> str:
    """A line on ``captioner.metrics.diversity``."""
    new = f", {variety['novel']:.1f} % in no training caption" if "novel" in variety else ""
    return (
        f"captions: {variety['distinct']:.1f} % distinct{new}, {variety['length']:.2f} tokens long, "
        f"{variety['words']:.0f} words ({variety['vocabulary']:.1f} % of the references')"
    )


def _as_json(scored: Scored, variety: Mapping[str, float]) -> str:
    from captioner.provenance import provenance

    content: dict[str, Any] = {
        "scores": {
            name: {"value": item.value, "fraction": item.fraction, "signature": item.signature, **item.parts}
            for name, item in scored.scores.items()
        },
        "diversity": dict(variety),
        "provenance": provenance(),
    }
    return json.dumps(content)


def _note(message: object) -> None:
    print(f"note: {message}", file=sys.stderr)
