"""``captioner crf``: train a conditional random field over the labels of clips, predict labels, evaluate them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captioner.errors import FeatureStoreError, print_error, printable
from captioner.files import Kind, check_output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from captioner.crf.predictions import Evaluation
    from captioner.crf.training import Epoch

app = typer.Typer(no_args_is_help=True, help="Conditional random field over the labels of clips.")

CRF_FILE = Kind("a CRF file", rb'.{8}\{"__metadata__":\{"captioner-crf"')
LABEL_PREDICTIONS = Kind("a file of label predictions", rb"\x89HDF\r\n\x1a\n.*captioner-label-predictions")

CLIPS = typer.Option("--clips", help="Clips with labels (clips.jsonl of python -m preprocess.tacos).")
FEATURES = typer.Option("--features", "-f", help="Feature store with clip ids; repeat it to concatenate several.")


@app.callback()
def crf() -> None:
    """Train a conditional random field over the labels of clips, and predict labels with it."""


@app.command()
def train(
    clips: Annotated[Path, CLIPS],
    features: Annotated[list[Path], FEATURES],
    output: Annotated[Path, typer.Option("--output", "-o", help="CRF file to write (.safetensors).")],
    graph: Annotated[
        str, typer.Option(help="Pairs of nodes with a pairwise factor: complete, tree (Chow-Liu) or none.")
    ] = "complete",
    chain: Annotated[
        bool, typer.Option("--chain", help="Add factors between consecutive clips of a video, one for each node.")
    ] = False,
    unary: Annotated[
        str, typer.Option(help="From features to unary potentials: linear, or mlp (one hidden layer).")
    ] = "linear",
    hidden_dim: Annotated[int, typer.Option(help="Units of the hidden layer.")] = 256,
    dropout: Annotated[float, typer.Option(help="Dropout probability of features and hidden units.")] = 0.0,
    folds: Annotated[
        int,
        typer.Option(
            min=0, max=1000, help="Also train K cross-validation models (split by video) for out-of-fold labels."
        ),
    ] = 0,
    epochs: Annotated[int, typer.Option(help="Maximum number of passes over the training clips.")] = 60,
    patience: Annotated[int, typer.Option(help="Stop after this many epochs without a better dev score.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Clips in a step.")] = 256,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 1e-2,
    weight_decay: Annotated[float, typer.Option(help="Precision of the Gaussian prior on the linear weights.")] = 10.0,
    factor_decay: Annotated[
        float, typer.Option(help="Precision of the Gaussian prior on pairwise and transition factors.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of batch order, dropout and folds.")] = 0,
) -> None:
    """Train on split train, and keep the epoch with the best log probability on split val.

    With --folds K, captioner crf predict uses for each training clip the model that was trained without its video.
    Train clip captioners on such out-of-fold predictions, because a CRF is more confident on its training clips than on
    new ones.
    """
    from captioner.crf import pipeline
    from captioner.crf.model import CRFConfig, save_crf
    from captioner.crf.training import CRFTrainConfig
    from captioner.data.clips import read_clips
    from captioner.features.label_predictions import open_store

    check_output("-o", output, CRF_FILE, [clips, *features])
    config = CRFConfig(graph, chain, unary, hidden_dim, dropout)
    train_config = CRFTrainConfig(epochs, patience, batch_size, lr, weight_decay, factor_decay, seed)
    stores = [open_store(path) for path in features]
    records = read_clips("clips", clips)
    trained, dev = pipeline.train(records, stores, config, train_config, folds, print_error, _show_epoch)
    if dev is not None:
        print("; ".join(filter(None, [f"dev  {dev.evaluation}", str(dev.not_converged)])))
    save_crf(output, trained)
    made = f"{graph} graph{', chain' if chain else ''}, {unary} unary, {trained.model.inference} inference"
    print(f"{made}: {printable(str(output))}")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="CRF file written by captioner crf train.")],
    features: Annotated[list[Path], FEATURES],
    output: Annotated[Path, typer.Option("--output", "-o", help="Label-predictions file to write (HDF5).")],
    clips: Annotated[
        Path | None,
        typer.Option(help="Predict only these clips, and evaluate them; a chain needs it.  [default: all features]"),
    ] = None,
) -> None:
    """Write label predictions: the marginals of each node and the MAP assignment.

    docs/label-predictions.md describes the file. Further observations of a clip (CLIP~2 in the feature store) are
    predicted too. Training clips are predicted by the model that was trained without their video, if there are
    cross-validation models. The exit status is 1 if a clip of --clips has no features; the others are written.
    """
    from captioner.crf import pipeline
    from captioner.crf.model import load_crf
    from captioner.crf.predictions import write_label_predictions
    from captioner.data.clips import read_clips
    from captioner.features.label_predictions import open_store

    check_output("-o", output, LABEL_PREDICTIONS, [model, clips, *features])
    crf, stores = load_crf(model), [open_store(path) for path in features]
    crf.check_stores(stores, str(model))
    wanted = None if clips is None else read_clips("clips", clips)
    result = pipeline.predict_clips(crf, stores, wanted)
    write_label_predictions(output, result.predictions)
    written = f"{output}: {len(result.predictions)} rows, {result.predictions.source}"
    print_error("; ".join(filter(None, [written, str(result.not_converged)])))
    if wanted is not None:
        _print_evaluations(pipeline.evaluate_splits(result.predictions, wanted))
    if result.missing:
        raise FeatureStoreError(
            f"{result.missing} clips of {clips} have no features; no predictions were written for them"
        )


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="Label-predictions file, from captioner crf or any other model.")],
    clips: Annotated[Path, CLIPS],
) -> None:
    """Evaluate label predictions by split: accuracy and calibration error.

    The accuracy is that of each node and of all nodes together; ECE is the expected calibration error.
    """
    from captioner.crf import pipeline
    from captioner.crf.predictions import read_label_predictions
    from captioner.data.clips import read_clips

    _print_evaluations(pipeline.evaluate_splits(read_label_predictions(predictions), read_clips("clips", clips)))


def _print_evaluations(evaluations: Mapping[str, Evaluation]) -> None:
    for split, evaluation in evaluations.items():
        print(f"{split:<5} {evaluation.clips} clips  {evaluation}")


def _show_epoch(name: str, epoch: Epoch) -> None:
    dev = f"  dev log prob {epoch.dev.log_prob:.4f}  {epoch.dev}" if epoch.dev else ""
    failed = f"  {epoch.not_converged} dev clips not converged" if epoch.not_converged else ""
    print_error(f"{name}, epoch {epoch.number}: log likelihood {epoch.log_likelihood:.3f}{dev}{failed}")
