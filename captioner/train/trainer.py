"""One training run of any task, from a configuration to checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captioner.checkpoint import save_checkpoint
from captioner.config import Experiment, TrainConfig
from captioner.errors import CaptionerError, ConfigError, MissingDependency, shorten
from captioner.files import PLOT, SAFETENSORS, Kind, check_output
from captioner.precision import resolve_precision
from captioner.progress import Progress
from captioner.provenance import provenance
from captioner.seeds import mix_seeds
from captioner.tasks.base import Batch, StepLoss, find_task
from captioner.train.distributed import World, world
from captioner.train.ema import WeightAverage
from captioner.train.optim import make_optimizer, rate_factor, set_rate
from captioner.train.runlog import RunLog, display, draw_curve
from captioner.train.state import load_state, read_metadata, save_state

DRAW_SECONDS = 20.0  # seconds between two plots of the curve
MAY_CHANGE = ("name", "train.epochs", "train.patience", "train.device", "train.log_every", "train.save_minutes")
"""Settings that may change when a run is resumed."""
MAY_CHANGE_ANYWHERE = ("workers",)
"""Settings that may change in any section of a task."""


FILES = {
    "best.safetensors": SAFETENSORS,
    "last.safetensors": SAFETENSORS,
    "state.safetensors": SAFETENSORS,
    "log.jsonl": Kind("the log of a run", rb'\{"kind"'),
    "curve.png": PLOT,
}
"""The files in a run's output folder."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a run."""

    checkpoint: Path
    """The best epoch's checkpoint."""
    metric: str
    """The dev metric that selected it."""
    score: float
    epoch: int
    """The best epoch, from 1."""
    epochs: int
    """Epochs done in all."""


@dataclass
class Sums:
    """Sums over some steps and all processes, as name: (sum, count)."""

    values: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, values: Mapping[str, tuple[float, float]]) -> None:
        for name, (total, count) in values.items():
            before = self.values.get(name, (0.0, 0.0))
            self.values[name] = (before[0] + total, before[1] + count)

    def means(self, skip: str = "terms") -> dict[str, float]:
        """The mean of each quantity."""
        return {name: total / max(count, 1e-9) for name, (total, count) in self.values.items() if name != skip}

    @property
    def terms(self) -> float:
        """Number of terms in the loss, such as tokens."""
        return self.values.get("terms", (0.0, 0.0))[0]


@dataclass
class Position:
    """The progress of a run; saved with the weights."""

    epoch: int = 1
    """The current epoch, from 1."""
    batch: int = 0
    """Batches of the current epoch that are done."""
    step: int = 0
    """Optimizer steps done in total."""
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    """``Sums`` of the current epoch."""
    best: float | None = None
    """Best value so far of the metric that selects the checkpoint."""
    best_epoch: int = 0
    seconds: float = 0.0
    """Seconds spent on all epochs so far, including evaluation."""
    finished: bool = False


def train(experiment: Experiment, *, resume: bool = True, progress: bool = True) -> TrainResult:
    """Train as ``experiment`` says; files go to ``experiment.output``.

    ``best.safetensors`` and ``last.safetensors`` are checkpoints, ``state.safetensors`` is the state from which a
    killed run resumes, ``log.jsonl`` is the log and ``curve.png`` its plot (if matplotlib is installed). With
    ``resume``, an interrupted run in that folder continues and ends with the numbers that it would have had. torch's
    global random state is restored at the end.
    """
    with world() as processes:
        device = _device(experiment.train.device, processes)
        devices = [device.index or 0] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return Trainer(experiment, processes, device, resume, progress).fit()


class Trainer:
    """The parts of a run, and the loop over its epochs. One for each process."""

    def __init__(
        self, experiment: Experiment, processes: World, device: torch.device, resume: bool, progress: bool
    ) -> None:
        self.experiment, self.config = experiment, experiment.train
        self.task = find_task(experiment.task)
        self.processes, self.device = processes, device
        self.progress = progress and processes.is_main
        self.output = Path(experiment.output)
        self.state_path = self.output / "state.safetensors"
        self.resuming = processes.broadcast_flag(resume and self.state_path.exists(), device)
        self.notes: list[str] = []
        self.precision = self._resolve_precision()
        if self.resuming:
            _check_same(read_metadata(self.state_path)["experiment"], experiment)
        else:
            _check_files(experiment, self.output)
        self.data = self.task.load_data(experiment)
        self.total = len(self.data) * self.config.epochs
        torch.manual_seed(self.config.seed)
        model = self.task.build(experiment.config, self.data.inputs, self.data.outputs)
        self.learner = self.task.make_learner(experiment, self.data, model, device)
        if not self.resuming:
            self.notes += self.task.start(experiment, self.data, self.learner)
            processes.broadcast_parameters([*self.learner.parameters(), *self.learner.buffers()])
        self.optimizer = make_optimizer(self.config, self.learner.parameter_groups(self.config))
        self.average = WeightAverage(self.learner, self.config.ema)
        self.parameters = [p for p in self.learner.parameters() if p.requires_grad]
        self.position = Position()
        self._open_files()
        self.saved = self.drawn = time.monotonic()

    @property
    def metric(self) -> str:
        """The dev metric that selects the checkpoint."""
        return self.config.metric or next(iter(self.task.metrics))

    def fit(self) -> TrainResult:
        """Run the remaining epochs."""
        position = self.position
        with display(self.progress, position.step, self.total) as show:
            self._announce(show)
            while not position.finished and position.epoch <= self.config.epochs:
                if self.processes.is_main and time.monotonic() - self.drawn > DRAW_SECONDS:
                    with suppress(MissingDependency):  # reported once, at the end
                        self._draw()
                self._epoch(show)
            if self.processes.is_main:
                try:
                    self._draw()
                except MissingDependency as error:
                    show.say(f"no training curve: {error}")
        if position.best is None:
            raise CaptionerError(f"{self.output}: no epoch was evaluated")
        path = self.output / "best.safetensors"
        if self.processes.is_main:
            self.log.write("end", position.step, best=position.best, best_epoch=position.best_epoch, metric=self.metric)
        return TrainResult(path, self.metric, position.best, position.best_epoch, position.epoch - 1)

    def optimize(self, batch: Batch) -> dict[str, tuple[float | Tensor, float]]:
        """One optimizer step; returns this process's sums and counts by name, the loss still on the device."""
        config, position = self.config, self.position
        # Dropout's random numbers depend only on seed, step and process, so resuming needs no saved random state.
        torch.manual_seed(mix_seeds(config.seed, position.step, self.processes.rank))
        set_rate(self.optimizer, rate_factor(config, position.step, self.total))
        self.optimizer.zero_grad(set_to_none=True)
        loss = StepLoss(torch.zeros((), device=self.device), 0)
        if len(batch):
            batch = batch.to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                loss = self.task.loss(self.learner, batch)
        [count] = self.processes.sum_numbers([loss.count], self.device)
        if len(batch):
            (loss.total * (config.loss_scale / count)).backward()  # type: ignore[no-untyped-call]
        self.processes.sum_gradients(self.parameters)
        if config.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, config.clip)
        self.optimizer.step()
        self.average.update(position.step + 1)
        terms = {"terms": (loss.count, 1.0)}
        return {**loss.shown, **terms} if loss.shown else {"loss": (loss.total.detach(), loss.count), **terms}

    def _resolve_precision(self) -> str:
        """float32 or bfloat16; the same in every process."""
        wanted = self.config.precision
        found = resolve_precision(wanted, self.device)
        [unable] = self.processes.sum_numbers([float(found != "bfloat16")], self.device)
        if wanted == "auto" and unable:
            found = "float32"
            self.notes.append(f"precision: float32, because {self.device} cannot train LSTMs in bfloat16")
        return found

    def _open_files(self) -> None:
        """Continue the interrupted run in the output folder, or remove the files of an earlier one."""
        if self.resuming:
            metadata = load_state(self.state_path, self.learner, self.optimizer, self.average.values)
            self.position = Position(**metadata["position"])
            waited = self.position.epoch - 1 - self.position.best_epoch
            self.position.finished &= bool(self.config.patience) and waited >= self.config.patience  # may have changed
        elif self.processes.is_main:
            for name in ("state", "best", "last"):
                (self.output / f"{name}.safetensors").unlink(missing_ok=True)
        if self.processes.is_main:
            step = self.position.step if self.resuming else None
            self.log = RunLog(self.output / "log.jsonl", step, self.position.epoch)

    def _announce(self, show: Progress) -> None:
        if not self.processes.is_main:
            return
        size = sum(p.numel() for p in self.learner.model.parameters())
        inputs = [spec.key for spec in self.data.inputs]
        parts = [
            f"{size / 1e6:.1f} M parameters in the model",
            f"{len(self.data)} batches per epoch",
            f"{self.data.outputs.kind} of {len(self.data.outputs)}",
            *([f"features of {' and '.join(inputs)}"] if inputs else []),
            str(self.device),
        ]
        show.say(f"{self.experiment.name}: {', '.join(parts)}")
        for note in self.notes:
            show.say(note)
        if self.resuming:
            show.say(f"resuming at epoch {self.position.epoch}, batch {self.position.batch}; --no-resume starts over")
            return
        self.log.write(
            "start",
            0,
            parameters=size,
            outputs=len(self.data.outputs),
            inputs=inputs,
            experiment=self.experiment.to_mapping(),
            precision=self.precision,
            provenance=provenance(),
            notes=self.notes,
        )

    def _epoch(self, show: Progress) -> None:
        """Run the rest of the current epoch, evaluate it and write its checkpoints."""
        position, processes = self.position, self.processes
        began, resumed = time.monotonic(), Sums(position.sums).terms
        meter = _Meter(self.device)
        self.learner.train()
        for batch in self.data.batches(position.epoch - 1, position.batch, processes.rank, processes.size):
            meter.add(self.optimize(batch))
            position.batch += 1
            position.step += 1
            if position.step % self.config.log_every == 0:
                self._report(meter, show, began)
                began = self._save_if_due(began)
        self._report(meter, show, began)
        trained = time.monotonic() - began
        position.seconds += trained
        self._finish_epoch(show, (Sums(position.sums).terms - resumed) / max(trained, 1e-9))

    def _report(self, meter: _Meter, show: Progress, began: float) -> None:
        """Log the steps since the last report, if there are any."""
        if not meter.steps:
            return
        position, steps = self.position, meter.steps
        sums, seconds = meter.take(self.processes)
        means = sums.means()
        for name, value in means.items():
            if not math.isfinite(value):
                raise CaptionerError(f"the {name} is {value} at step {position.step}; lower train.lr or train.clip")
        epoch = Sums(position.sums)
        epoch.add(sums.values)
        position.sums = epoch.values
        show.advance(steps, "  ".join(f"{name} {value:.3f}" for name, value in means.items()))
        if self.processes.is_main:
            record = {**means, "lr": self.optimizer.param_groups[0]["lr"], self._speed: sums.terms / seconds}
            elapsed = position.seconds + time.monotonic() - began
            self.log.write("steps", position.step, epoch=position.epoch, seconds=round(elapsed, 2), **record)

    @property
    def _speed(self) -> str:
        return f"{self.task.unit}_per_second"

    def _save_if_due(self, began: float) -> float:
        """Save within an epoch if the last save is long ago; returns the time up to which seconds are counted."""
        due = time.monotonic() - self.saved > 60 * self.config.save_minutes
        if not self.processes.broadcast_flag(due, self.device):
            return began
        now = time.monotonic()
        self.position.seconds += now - began
        self._save_state()
        return now

    def _save_state(self) -> None:
        self.saved = time.monotonic()
        if self.processes.is_main:
            metadata = {"experiment": self.experiment.to_mapping(), "position": dataclasses.asdict(self.position)}
            save_state(self.state_path, self.learner, self.optimizer, self.average.values, metadata)

    def _finish_epoch(self, show: Progress, speed: float) -> None:
        """Evaluate, keep the best checkpoint, write the log and the state; every process learns whether to stop."""
        position, config = self.position, self.config
        began = time.monotonic()
        record = {f"train_{name}": value for name, value in Sums(position.sums).means().items()}
        record[self._speed] = round(speed, 1)
        stop = False
        due = position.epoch % config.evaluate_every == 0 or position.epoch == config.epochs
        if self.processes.is_main and due:
            record |= self._evaluate()
            stop = bool(config.patience) and position.epoch - position.best_epoch >= config.patience
        position.seconds += time.monotonic() - began
        if self.processes.is_main:
            self.log.write("epoch", position.step, epoch=position.epoch, seconds=round(position.seconds, 2), **record)
            show.say(self._line(record))
        # Only the main process knows the scores. NaN means none.
        best = math.nan if position.best is None else position.best
        stopped, best, best_epoch = self.processes.broadcast([float(stop), best, position.best_epoch], self.device)
        position.finished, position.best_epoch = bool(stopped), int(best_epoch)
        position.best = None if math.isnan(best) else best
        position.epoch += 1
        position.batch = 0
        position.sums = {}
        self._save_state()

    def _evaluate(self) -> dict[str, float]:
        """Dev metrics of the weights, which are saved as ``last`` and, if they are the best so far, as ``best``."""
        position = self.position
        with self.average.applied():
            scores = self.task.evaluate(self.learner, self.data, self.precision)
            names = ["last"]
            if self._is_better(scores[self.metric]):
                position.best, position.best_epoch = scores[self.metric], position.epoch
                names.append("best")
            for name in names:
                self._save_checkpoint(self.output / f"{name}.safetensors", scores)
        return scores

    def _is_better(self, score: float) -> bool:
        best = self.position.best
        if best is None:
            return True
        return score > best if self.task.metrics[self.metric] == "max" else score < best

    def _save_checkpoint(self, path: Path, scores: dict[str, float]) -> None:
        learner, data = self.learner, self.data
        states = None if learner.backbone is None else [learner.backbone.network.state_dict()]
        mapping = self.experiment.to_mapping()
        extra = {"name": mapping["name"], "train": mapping["train"], "epoch": self.position.epoch, "dev": scores}
        save_checkpoint(
            path,
            self.task.name,
            learner.model,
            self.experiment.config,
            data.inputs,
            data.outputs,
            extra=extra,
            backbone_states=states,
        )

    def _line(self, record: Mapping[str, float]) -> str:
        """One epoch as a line of text; a star marks the best so far."""
        numbers = "  ".join(f"{name} {value:{_form(name)}}" for name, value in record.items())
        best = "  *" if self.position.best_epoch == self.position.epoch else ""
        return f"epoch {self.position.epoch}/{self.config.epochs}  {numbers}  {self.position.seconds:.0f} s{best}"

    def _draw(self) -> None:
        """Plot the curve so far; raises ``MissingDependency`` without matplotlib."""
        self.drawn = time.monotonic()
        scores = [name for name in self.task.metrics if name != "dev_loss"]
        draw_curve(self.output / "log.jsonl", self.output / "curve.png", self.experiment.name, scores)


class _Meter:
    """Sums and time since the last report; the loss is copied from the device only for a report."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.clear()

    def clear(self) -> None:
        self.steps = 0
        self.sums: dict[str, tuple[float | Tensor, float]] = {}
        self.since = time.monotonic()

    def add(self, values: Mapping[str, tuple[float | Tensor, float]]) -> None:
        self.steps += 1
        for name, (total, count) in values.items():
            before = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (before[0] + total, before[1] + count)

    def take(self, processes: World) -> tuple[Sums, float]:
        """The sums over all processes and the seconds since the last time."""
        numbers = [float(number) for pair in self.sums.values() for number in pair]
        summed = processes.sum_numbers(numbers, self.device)
        values = {name: (summed[2 * i], summed[2 * i + 1]) for i, name in enumerate(self.sums)}
        taken = (Sums(values), max(time.monotonic() - self.since, 1e-9))
        self.clear()
        return taken


def _form(name: str) -> str:
    """Number format for a line of text: losses and rewards, speeds, scores."""
    return ".3f" if name.startswith("train_") or name.endswith("_loss") else ".0f" if "per_second" in name else ".4g"


def _device(wanted: str, processes: World) -> torch.device:
    """The device that a configuration names; each process of a machine takes its own GPU."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{processes.local_rank}" if wanted == "cuda" else wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"train.device {shorten(wanted)} is not available ({reason}); use train.device=cpu") from None
    return device


def _check_files(experiment: Experiment, folder: Path) -> None:
    """Raise ``UsageError`` if a new run would replace an input, such as ``train.init_from``, or a foreign file."""
    values = _flat(experiment.to_mapping()).values()
    inputs = [text for value in values for text in (value if isinstance(value, list) else [value])]
    named = [text for text in inputs if isinstance(text, str)]
    for name, kind in FILES.items():
        check_output("output:", folder / name, kind, named)


def _check_same(before: dict[str, Any], experiment: Experiment) -> None:
    """Raise ``ConfigError`` if the interrupted run had other settings than the one that would resume it."""
    default = dataclasses.replace(experiment, config=find_task(experiment.task).config(), train=TrainConfig())
    was = _flat(default.to_mapping()) | _flat(before)  # a setting that did not exist then had its default value
    now = _flat(experiment.to_mapping())
    changed = [
        f"{key} was {was[key]}, now {value}"
        for key, value in now.items()
        if was[key] != value and key not in MAY_CHANGE and key.rpartition(".")[2] not in MAY_CHANGE_ANYWHERE
    ]
    if changed:
        advice = "start over with --no-resume or choose another output"
        raise ConfigError(f"{experiment.output} holds a run with other settings ({'; '.join(changed)}); {advice}")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
