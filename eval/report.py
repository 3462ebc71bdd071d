"""Evaluate training runs and results files: one table, and with -o a page to send to a colleague.

    python -m eval.report runs/4f-seed* runs/2f-seed* nn30.json human-caption*.json -o report --images

RUNS are training runs' folders, checkpoints, or files of captions as `captioner caption -o` and `eval.baselines` write
them. Runs that differ only in their seed and folder are one system, whose scores are means over them, with standard
deviations; so are files whose names differ only in a number after -seed or -caption. The other systems are compared
with the first one, or with --baseline. A file counts as human if each caption is one of the image's own references: it
is scored on the other references, and so are the systems in the same table.

A model's captions come from the feature stores that it was trained on, with the decoding saved in its checkpoint;
--root, --features, --beam-size, --length-penalty and --no-repeat-ngram-size override these. With -o the captions are
kept in the report's folder for later reports. stdout gets the table in Markdown; -o FOLDER adds index.html, which is
self-contained, and report.md with its figures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from captioner.cli.program import choice, create_app, run
from captioner.data import READERS, read_dataset
from captioner.data.records import Captioned, of_split
from captioner.errors import DataError, UsageError, print_error
from captioner.files import Kind, check_output, write_text
from captioner.predictors.features import FeatureCaptioner
from captioner.text.tokenizers import DEFAULT
from eval import sections
from eval.command import Device, Split, Tokenizer
from eval.evaluation import Evaluation, Scorer, evaluate
from eval.page import Block, Figure, to_html, to_markdown
from eval.published import NAMES
from eval.systems import CaptionOptions, group, load_captioner, read_file, read_run

METRICS = "bleu,cider,rouge"
MARKDOWN = Kind("a report in Markdown", rb"# ")
FIGURE = Kind("a figure of a report", rb"<svg ")
PAGE = Kind("a page of this program", rb"<!DOCTYPE html>.*<meta name=\"generator\" content=\"captioner\">")


def report(
    context: typer.Context,
    runs: Annotated[list[Path], typer.Argument(help="Training runs' folders, checkpoints, files of captions.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the page.")] = None,
    baseline: Annotated[str, typer.Option(help="Name of the system to compare the others with.")] = "",
    split: Split = "test",
    root: Annotated[str, typer.Option(help="The data set's folder, if not where it was in training.")] = "",
    data_format: Annotated[
        str, choice(sorted(READERS), "--format", help="The data set's format, if no run names it.")
    ] = "",
    features: Annotated[
        list[str] | None,
        typer.Option(help="A feature store, if not where it was in training; repeat the option for several."),
    ] = None,
    beam_size: Annotated[int | None, typer.Option(help="Overrides each checkpoint's own.")] = None,
    length_penalty: Annotated[float | None, typer.Option(help="Overrides each checkpoint's own.")] = None,
    no_repeat_ngram_size: Annotated[int | None, typer.Option(help="Overrides each checkpoint's own.")] = None,
    missing: Annotated[
        str, choice(("error", "empty"), help="Images without a caption in a file: an error, or empty captions.")
    ] = "error",
    metrics: Annotated[
        str, typer.Option(help="Some of bleu, cider, rouge, meteor, spice, separated by commas.")
    ] = METRICS,
    tokenizer: Tokenizer = DEFAULT,
    published: Annotated[str, choice(NAMES, help="Published scores to add, if not those of the data set.")] = "",
    images: Annotated[bool, typer.Option("--images", help="Show examples with the data set's images.")] = False,
    image_folder: Annotated[Path | None, typer.Option(help="Show examples with the images of this folder.")] = None,
    examples: Annotated[int, typer.Option(help="Number of best, median and worst images; 0 for none.")] = 4,
    title: Annotated[str, typer.Option(help="The data set's name on the page.")] = "",
    device: Device = "cpu",
) -> None:
    if output is not None:
        check_output("-o", output / "index.html", PAGE, runs)
        check_output("-o", output / "report.md", MARKDOWN, runs)
    models = {path: load_captioner(path, device) for path in runs if _is_model(path)}
    records, data_format = _data(models, root, data_format)
    chosen = [record for record in of_split(records, split) if record.captions]
    decoding = {
        "beam_size": beam_size,
        "length_penalty": length_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
    }
    options = CaptionOptions(
        split,
        root or None,
        features or None,
        {name: value for name, value in decoding.items() if value is not None},
        output / "captions" if output else None,
    )
    read = [
        read_run(path, models[path], chosen, options) if path in models else read_file(path, chosen, missing)
        for path in runs
    ]
    scorer = Scorer(split, [name.strip() for name in metrics.split(",")], tokenizer)
    evaluation = evaluate(group(read), chosen, scorer, baseline)
    blocks = _tables(evaluation, published or (data_format if data_format in NAMES else ""), split)
    heading = f"{title or data_format} {split}"
    print(to_markdown(heading, [block for part in blocks for block in part]), end="")
    if output is not None:
        scores, rest, after = blocks
        training = [record for record in records if record.split == "train"]
        found = _images(evaluation, image_folder, images)
        figures = [*sections.lengths(evaluation), *sections.curves(evaluation)]
        style = [*sections.diversity(evaluation, training), *sections.examples(evaluation, examples, found)]
        reproduce = sections.reproduce(evaluation, context.obj)
        write(output, heading, [*scores, *sections.charts(evaluation), *rest, *figures, *style, *after, *reproduce])


def _tables(evaluation: Evaluation, published: str, split: str) -> tuple[list[Block], list[Block], list[Block]]:
    """Three parts: scores; differences and humans; published scores and signatures."""
    after = sections.published(evaluation, published, split) if published else []
    return (
        [*sections.summary(evaluation), *sections.results(evaluation)],
        [*sections.gaps(evaluation.main), *sections.beside_humans(evaluation)],
        [*after, *sections.signatures(evaluation)],
    )


def write(folder: Path, title: str, blocks: Sequence[Block]) -> None:
    """Write ``index.html``, ``report.md`` and its figures into ``folder``."""
    figures = {folder / f"{block.name}.svg": block.svg for block in blocks if isinstance(block, Figure)}
    for path in figures:
        check_output("-o", path, FIGURE)
    for path, svg in figures.items():
        write_text(path, svg)
    write_text(folder / "report.md", to_markdown(title, blocks))
    write_text(folder / "index.html", to_html(title, blocks))
    print_error(f"report written to {folder / 'index.html'}")


def _images(evaluation: Evaluation, folder: Path | None, wanted: bool) -> dict[str, Path] | None:
    """The images' files by id: those in ``folder`` or, if ``wanted``, of the data set; None for neither."""
    if folder is None:
        return {r.image_id: r.path for r in evaluation.records if r.path is not None} if wanted else None
    paths = {record.image_id: folder / record.image_id for record in evaluation.records}
    found = {image: path for image, path in paths.items() if path.is_file()}
    if not found:
        raise DataError(f"--image-folder {folder}: has none of the images, such as {evaluation.records[0].image_id}")
    return found


def _is_model(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".safetensors"


def _data(models: dict[Path, FeatureCaptioner], root: str, data_format: str) -> tuple[list[Captioned], str]:
    """The data set of ``root`` and ``data_format``; by default the first model's training data set."""
    known = next((data for model in models.values() if (data := model.checkpoint.config.data) is not None), None)
    data_format = data_format or (known.format if known else "")
    root = root or (known.root if known else "")
    if not data_format or not root:
        raise UsageError("no run names its data set; name it with --root and --format")
    return read_dataset(data_format, Path(root)), data_format


app = create_app(__doc__, report)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
