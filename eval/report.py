"""Judge training runs and results files: one table, and with -o a page to send to a colleague.

    python -m eval.report runs/4f-seed* runs/2f-seed* nn30.json human-caption*.json -o report --images images

RUNS are training runs' folders, checkpoints, or files of captions as `captioner caption -o` and `eval.baselines` write
them. Runs that differ in their seed and folder alone are one system: their mean, with the standard deviation; so are
files whose names differ in a number behind -seed or -caption. The first system, or --baseline, is what the others are
held against. A file in which every caption is one of the image's own references is people: it is scored on the other
references, and every system beside it on the same.

A model's captions come from the feature stores it was trained on, found with the search kept in its checkpoint; --root,
--features, --beam, --length-penalty and --no-repeat override that. With -o they are kept in the report's folder, so
that a second report takes them from there. stdout has the table in Markdown; -o FOLDER adds index.html, which needs
nothing else, report.md and its figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from captioner.data import READERS, SPLITS, read_dataset
from captioner.data.records import Captioned, of_split
from captioner.errors import DataError, UsageError, exit_status
from captioner.files import write_text
from captioner.predictors import load
from captioner.predictors.features import FeatureCaptioner
from captioner.text.tokenizers import DEFAULT
from eval import sections
from eval.judge import Judged, Scorer, judge
from eval.page import Block, Figure, to_html, to_markdown
from eval.published import NAMES
from eval.systems import Choice, Run, group, read_file, read_run

METRICS = "bleu,cider,rouge"


def report(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Caption, score and compare, print the table, and write the page if it is wanted."""
    models = {path: load(path, options.device) for path in options.runs if _is_model(path)}
    records, data_format = _data(models, options)
    chosen = [record for record in of_split(records, options.split) if record.captions]
    scorer = Scorer(options.split, [name.strip() for name in options.metrics.split(",")], options.tokenizer)
    judged = judge(group(_read(models, chosen, options)), chosen, scorer, options.baseline)
    scores = [*sections.summary(judged), *sections.results(judged)]
    rest = [*sections.gaps(judged.main), *sections.people(judged)]
    name = options.published or (data_format if data_format in NAMES else "")
    after = sections.published(judged, name, options.split) if name else []
    after += sections.signatures(judged)
    title = f"{options.title or data_format} {options.split}"
    print(to_markdown(title, [*scores, *rest, *after]), end="")
    if options.output is not None:
        training = [record for record in records if record.split == "train"]
        scores += [*sections.charts(judged), *rest, *_details(judged, training, options)]
        write(options.output, title, [*scores, *after, *sections.reproduce(judged, arguments)])


def write(folder: Path, title: str, blocks: Sequence[Block]) -> None:
    """``index.html``, ``report.md`` and the figures of the latter into ``folder``."""
    for block in blocks:
        if isinstance(block, Figure):
            write_text(folder / f"{block.name}.svg", block.svg)
    write_text(folder / "report.md", to_markdown(title, blocks))
    write_text(folder / "index.html", to_html(title, blocks))
    print(f"report written to {folder / 'index.html'}", file=sys.stderr)


def _details(judged: Judged, training: Sequence[Captioned], options: argparse.Namespace) -> list[Block]:
    return [
        *sections.lengths(judged),
        *sections.curves(judged),
        *sections.style(judged, training),
        *sections.examples(judged, options.examples, _images(judged, options.images)),
    ]


def _images(judged: Judged, folder: Path | Literal[True] | None) -> dict[str, Path] | None:
    """The images' files by id, None if none are wanted; ``folder`` True is the data set's own."""
    if folder is None:
        return None
    if folder is True:
        return {record.image_id: record.path for record in judged.records if record.path is not None}
    paths = {record.image_id: Path(folder) / record.image_id for record in judged.records}
    found = {image: path for image, path in paths.items() if path.is_file()}
    if not found:
        raise DataError(f"--images {folder}: has none of the images, such as {judged.records[0].image_id}")
    return found


def _is_model(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".safetensors"


def _data(models: dict[Path, FeatureCaptioner], options: argparse.Namespace) -> tuple[list[Captioned], str]:
    """The data set: that of ``--root`` and ``--format``, else the one that the first model was trained on."""
    known = next((data for model in models.values() if (data := model.data_set) is not None), None)
    data_format = options.format or (known.format if known else "")
    root = options.root or (known.root if known else "")
    if not data_format or not root:
        raise UsageError("no run says which data set it is about; name it with --root and --format")
    return read_dataset(data_format, Path(root)), data_format


def _read(models: dict[Path, FeatureCaptioner], records: Sequence[Captioned], options: argparse.Namespace) -> list[Run]:
    """Every run's captions, in the order of the command line."""
    named = {
        "beam_size": options.beam,
        "length_penalty": options.length_penalty,
        "no_repeat_ngram_size": options.no_repeat,
    }
    choice = Choice(
        options.split,
        options.root,
        options.features,
        {name: value for name, value in named.items() if value is not None},
        options.output / "captions" if options.output else None,
    )
    return [
        read_run(path, models[path], records, choice) if path in models else read_file(path, records, options.missing)
        for path in options.runs
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="training runs' folders, checkpoints, files of captions")
    parser.add_argument("-o", "--output", type=Path, help="folder for the page")
    parser.add_argument("--baseline", default="", help="name of the system to hold the others against")
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--root", help="the data set's folder, if not where it was in training")
    parser.add_argument("--format", choices=sorted(READERS), help="the data set's format, if no run says it")
    parser.add_argument("--features", nargs="+", help="feature stores, if not where they were in training")
    parser.add_argument("--beam", type=int, help="beam width instead of each checkpoint's own")
    parser.add_argument("--length-penalty", type=float, help="instead of each checkpoint's own")
    parser.add_argument("--no-repeat", type=int, help="instead of each checkpoint's own")
    absent = "what a file without a caption for some images is: an error, or empty captions"
    parser.add_argument("--missing", default="error", choices=("error", "empty"), help=absent)
    parser.add_argument("--metrics", default=METRICS, help="bleu, cider, rouge, meteor, spice, with commas between")
    parser.add_argument("--tokenizer", default=DEFAULT)
    parser.add_argument("--published", choices=NAMES, help="papers' figures to add, if not those of the data set")
    images = "show examples with their images: those of the data set, or of this folder"
    parser.add_argument("--images", type=Path, nargs="?", const=True, metavar="FOLDER", help=images)
    parser.add_argument("--examples", type=int, default=4, help="how many best, median and worst images; 0 for none")
    parser.add_argument("--title", help="the data set's name on the page")
    parser.add_argument("--device", default="cpu")
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    return exit_status(lambda: report(options, given))


if __name__ == "__main__":
    sys.exit(main())
