"""``captioner train``: a configuration to a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a shipped one.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Overrides one setting, as train.lr=2e-3; may be repeated."),
    ] = None,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Start afresh instead of continuing what lies in the output folder.")
    ] = False,
) -> None:
    """Train a decoder on cached features (or from images) as CONFIG says.

    A run that was stopped or killed goes on where it was when the same command is given again. Several processes:
    torchrun --nproc-per-node N -m captioner train CONFIG.
    """
    from captioner.experiment import load_experiment
    from captioner.train.distributed import is_first
    from captioner.train.trainer import train as run

    experiment = load_experiment(config, settings or [])
    result = run(experiment, resume=not no_resume)
    if not is_first():
        return
    reached = f"{result.metric} {result.score:.4g} at epoch {result.epoch} of {result.epochs}"
    print(f"best dev {reached}: {result.checkpoint}")
    if result.metric == "dev_loss":
        print(f"next: captioner train CONFIG --set train.init_from={result.checkpoint}")
    elif experiment.data.format == "clips":
        print(f"next: captioner describe LABEL_PREDICTIONS --model {result.checkpoint}")
    else:
        print(f"next: captioner caption --model {result.checkpoint} photo.jpg")
