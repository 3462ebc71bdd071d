"""``captioner train``: train a configured model to a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from captioner.errors import printable


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a shipped one.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, as in train.lr=2e-3; repeat it for more."),
    ] = None,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Start over instead of resuming the run in the output folder.")
    ] = False,
) -> None:
    """Train a model on stored features, or on images, as configured by CONFIG.

    The same command resumes an interrupted run. To train in several processes: torchrun --nproc-per-node N -m captioner
    train CONFIG.
    """
    from captioner.experiment import load_experiment
    from captioner.train.distributed import is_main_process
    from captioner.train.trainer import train as run

    experiment = load_experiment(config, settings or [])
    result = run(experiment, resume=not no_resume)
    if not is_main_process():
        return
    reached = f"{result.metric} {result.score:.4g} at epoch {result.epoch} of {result.epochs}"
    checkpoint = printable(str(result.checkpoint))
    print(f"best dev {reached}: {checkpoint}")
    if experiment.task == "language_model":
        print(f"next: captioner train CONFIG --set train.init_from={checkpoint}")
    elif experiment.task == "clip_captioning":
        print(f"next: captioner describe LABEL_PREDICTIONS --model {checkpoint}")
    elif experiment.task == "activity":
        print(f"next: captioner recognize --model {checkpoint} video.mp4")
    elif experiment.task == "classification":
        print(f"next: captioner classify --model {checkpoint} photo.jpg")
    else:
        print(f"next: captioner caption --model {checkpoint} photo.jpg")
