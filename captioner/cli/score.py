"""``captioner score``: score captions of images against their references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captioner.cli import scoring_options as options
from captioner.errors import warn
from captioner.files import Kind, check_output, write_text
from captioner.text.tokenizers import DEFAULT

STRING = rb'"(?:[^"\\]|\\.)*"'
SCORES = Kind("a file of images' scores", rb'\{"image": %b, "caption": %b, "[A-Z][\w-]*": \d' % (STRING, STRING))


def score(
    results: Annotated[
        Path,
        typer.Argument(help="Captions: COCO results, JSON lines, image<TAB>caption, or one per line."),
    ],
    references: options.References,
    data_format: options.Format = "",
    split: options.Split = "",
    missing: options.Missing = "error",
    metrics: Annotated[
        str, typer.Option(help="Some of bleu, cider, rouge, meteor, spice, separated by commas.  [default: all]")
    ] = "",
    tokenizer: options.Tokenizer = DEFAULT,
    df: options.DocumentFrequencies = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="REF",
            help="Training captions, for the share of novel captions.  [default: the data set's, if it has any]",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object: value in percent, fraction as coco-caption prints it."),
    ] = False,
    per_image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each image's scores here, one JSON object per line.")
    ] = None,
    latex: options.Latex = False,
    markdown: options.Markdown = False,
) -> None:
    """Score captions as coco-caption does: BLEU-1 to 4, CIDEr-D, ROUGE-L; all in percent.

    These need no Java. METEOR 1.5 and SPICE are the authors' Java programs and come with pip install 'captioner[java]'.
    If one cannot run, it is left out, and a line on stderr says why. After the scores come the shares of distinct
    captions, of novel captions (equal to no training caption) and of the references' words that were used, and the mean
    length.

    Captions are matched to images by file name or numeric id. A mismatch is an error; --missing changes this.
    """
    style = options.table_style(as_json, latex, markdown)
    if per_image is not None:
        check_output("--per-image", per_image, SCORES, [results, *references, df, train])
    from captioner.data.results import read_captions, read_systems, read_training_captions
    from captioner.metrics import References, report
    from captioner.metrics.cider import DocumentFrequency
    from captioner.metrics.diversity import diversity
    from captioner.provenance import provenance

    [matched], records = read_systems([results], references, data_format, split, missing, warn)
    scorer = References(matched.references, tokenizer, **matched.metadata)
    frequency = None if df is None else DocumentFrequency.of_references(read_captions(df), scorer.tokenize, df.stem)
    selected = report.select_metrics(metrics, frequency)
    scored = scorer.score(matched.hypotheses, selected, on_missing=None if metrics else warn)
    tokens = scorer.tokenize(list(matched.hypotheses.values()))
    training = scorer.tokenize(read_training_captions(train, records, split))
    variety = diversity(tokens, list(scorer.tokens.values()), training)
    if per_image is not None:
        write_text(per_image, report.per_image_lines(scored, matched.hypotheses))
    if as_json:
        print(report.score_json(scored, variety, provenance()))
    else:
        print(report.score_table(results.stem, scored, variety, style))
