"""One training run, from a configuration to checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captioner.backbones import load_backbone
from captioner.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from captioner.config import TrainConfig, to_mapping
from captioner.errors import CaptionerError, ConfigError, MissingDependency
from captioner.experiment import Experiment
from captioner.features.label_predictions import open_store
from captioner.models.lrcn import ImageCaptioner
from captioner.precision import resolve_precision
from captioner.provenance import provenance
from captioner.train.distributed import World, world
from captioner.train.evaluate import encode, evaluate
from captioner.train.finetune import ImageFiles
from captioner.train.initialize import check_same_model, set_statistics, take_weights
from captioner.train.material import Step, read_material
from captioner.train.network import Average, Network
from captioner.train.optim import make_optimizer, rate_factor, set_rate
from captioner.train.runlog import Display, RunLog, display, draw_curve
from captioner.train.self_critical import SelfCritical
from captioner.train.state import load_state, read_facts, save_state
from captioner.train.teachers import read_teachers

DRAW_SECONDS = 20.0  # between two images of the curve
STATISTICS_FROM = 1024  # images whose features are measured when fine-tuning
MAY_CHANGE = ("name", "epochs", "patience", "device", "log_every", "save_minutes", "workers")
"""Settings that a resumed run may have otherwise than the interrupted one."""


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    checkpoint: Path
    """The best epoch's checkpoint."""
    metric: str
    """What chose it: bleu4, cider or dev_loss."""
    score: float
    epoch: int
    """The best epoch, from 1."""
    epochs: int
    """Epochs done in all."""


@dataclass
class Position:
    """How far a run is; saved with the weights."""

    epoch: int = 1
    """Being worked on, from 1."""
    batch: int = 0
    """Batches of it that are done."""
    step: int = 0
    """Optimizer steps done in all."""
    loss: float = 0.0
    """Summed training loss of this epoch, in nats."""
    tokens: int = 0
    """Real targets behind that sum."""
    reward: float = 0.0
    """Summed reward of the captions drawn in this epoch."""
    captions: int = 0
    """Captions behind that sum."""
    best: float | None = None
    """Best dev score; larger is better, so a dev loss counts negatively."""
    best_epoch: int = 0
    seconds: float = 0.0
    """Time spent on all epochs so far, evaluation included."""
    finished: bool = False


def train(experiment: Experiment, *, resume: bool = True, progress: bool = True) -> TrainResult:
    """Train as ``experiment`` says; files go to ``experiment.output``.

    ``best.safetensors`` and ``last.safetensors`` are checkpoints, ``state.safetensors`` is what a killed run resumes
    from, ``log.jsonl`` the record, ``curve.png`` its image (where matplotlib is installed). With ``resume`` an
    interrupted run in that folder is continued and ends with the numbers it would have had.
    torch's global random state is the caller's again at the end.
    """
    with world() as processes:
        device = _device(experiment.train.device, processes)
        devices = [device.index or 0] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return Run(experiment, processes, device, resume, progress).go()


class Run:
    """The parts of a run, and the walk over its epochs. One for each process."""

    def __init__(
        self, experiment: Experiment, processes: World, device: torch.device, resume: bool, progress: bool
    ) -> None:
        self.experiment, self.config = experiment, experiment.train
        self.processes, self.device = processes, device
        self.progress = progress and processes.first
        self.output = Path(experiment.output)
        self.state_path = self.output / "state.safetensors"
        self.resuming = processes.agree(resume and self.state_path.exists(), device)
        self.notes: list[str] = []
        self.precision = self._resolve_precision()
        if self.resuming:
            _check_same(read_facts(self.state_path)["experiment"], experiment)
        self.material = read_material(experiment)
        self.total = len(self.material.batches) * self.config.epochs
        torch.manual_seed(self.config.seed)
        self.network = self._build()
        self.optimizer = make_optimizer(self.config, self.network.decoder, self.network.backbone)
        self.average = Average(self.network, self.config.ema)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.critic = None
        if self.config.objective == "self_critical":
            self.critic = SelfCritical(experiment, self.material, self.network, processes, self.precision)
        self.position = Position()
        if self.resuming:
            facts = load_state(self.state_path, self.network, self.optimizer, self.average.values)
            self.position = Position(**facts["position"])
        elif processes.first:
            for name in ("state", "best", "last"):
                (self.output / f"{name}.safetensors").unlink(missing_ok=True)
        if processes.first:
            self.log = RunLog(self.output / "log.jsonl", self.position.step if self.resuming else None)
        self.saved = self.drawn = time.monotonic()

    def go(self) -> TrainResult:
        """All epochs that are still to do."""
        position = self.position
        with display(self.progress, position.step, self.total) as show:
            self._announce(show)
            while not position.finished and position.epoch <= self.config.epochs:
                if self.processes.first and time.monotonic() - self.drawn > DRAW_SECONDS:
                    with suppress(MissingDependency):  # said once, at the end
                        self._draw()
                self._epoch(show)
            if self.processes.first:
                try:
                    self._draw()
                except MissingDependency as error:
                    show.say(f"no training curve: {error}")
        if position.best is None:
            raise CaptionerError(f"{self.output}: no epoch was evaluated")
        score = position.best if self.metric != "dev_loss" else -position.best
        path = self.output / "best.safetensors"
        if self.processes.first:
            self.log.write("end", position.step, best=score, best_epoch=position.best_epoch, metric=self.metric)
        return TrainResult(path, self.metric, score, position.best_epoch, position.epoch - 1)

    @property
    def metric(self) -> str:
        return self.config.metric if self.material.references else "dev_loss"

    def _resolve_precision(self) -> str:
        """float32 or bfloat16, the same in every process."""
        wanted = self.config.precision
        found = resolve_precision(wanted, self.device)
        unable = torch.tensor(float(found != "bfloat16"), device=self.device)
        if wanted == "auto" and float(self.processes.sum(unable)):
            found = "float32"
            self.notes.append(f"precision: float32, because {self.device} cannot train LSTMs in bfloat16")
        return found

    def _build(self) -> Network:
        """The network with its starting weights, equal in every process."""
        config, material = self.config, self.material
        source = load_checkpoint(config.init_from) if config.init_from else None
        backbone = None
        if config.finetune:
            assert isinstance(material.images, ImageFiles)
            weights = Path(config.weights) if config.weights else None
            backbone = load_backbone(config.backbone, weights, _trained_state(source, config))
            backbone.requires_grad_(True)
            material.images.spec = backbone.spec
            material.backbones, material.feature_size = [backbone.spec], backbone.spec.dimension
        names = [name for spec in material.backbones for name in spec.names]
        decoder = ImageCaptioner(self.experiment.model, len(material.vocabulary), material.feature_size, names)
        teachers = None
        if config.teachers:
            size = sum(open_store(path).spec.dimension for path in config.teacher_features) or material.feature_size
            teachers = read_teachers(config.teachers, material.vocabulary, size, self.device)
        network = Network(decoder, backbone, teachers, config.teacher_weight).to(self.device)
        if self.resuming:
            return network
        critical = config.objective == "self_critical"
        if source is not None and critical:
            check_same_model(source, config.init_from, self.experiment.model, material.feature_size)
        keep = source is not None and source.model.feature_size == material.feature_size
        keep = keep and (config.finetune or critical)
        if self.experiment.model.normalize != "none" and material.references and not keep:
            network.eval()
            rows = material.train_rows
            seen = encode(network, material, rows[:STATISTICS_FROM] if config.finetune else rows)
            set_statistics(decoder, seen, [spec.dimension for spec in material.backbones])
        if source is not None:
            report = take_weights(decoder, material.vocabulary, source, statistics=keep)
            self.notes.append(f"{config.init_from}: {report}")
        self.processes.share([*network.parameters(), *network.buffers()])
        return network

    def _announce(self, show: Display) -> None:
        if not self.processes.first:
            return
        size = sum(p.numel() for p in self.network.decoder.parameters())
        backbones = [spec.key for spec in self.material.backbones]
        facts = [
            f"{size / 1e6:.1f} M parameters in the decoder",
            f"{len(self.material.batches)} batches an epoch",
            f"{len(self.material.vocabulary)} words",
            *([f"features of {' and '.join(backbones)}"] if backbones else []),
            str(self.device),
        ]
        show.say(f"{self.experiment.name}: {', '.join(facts)}")
        for note in self.notes:
            show.say(note)
        if self.resuming:
            show.say(f"resuming at epoch {self.position.epoch}, batch {self.position.batch}; --no-resume starts afresh")
            return
        sizes = {"parameters": size, "words": len(self.material.vocabulary), "backbones": backbones}
        origin = {"experiment": to_mapping(self.experiment), "provenance": provenance(), "notes": self.notes}
        origin["precision"] = self.precision
        self.log.write("start", 0, **sizes, **origin)

    def _epoch(self, show: Display) -> None:
        """The rest of the current epoch, its evaluation and its checkpoints."""
        position, processes = self.position, self.processes
        began, resumed_tokens = time.monotonic(), position.tokens
        meter = _Meter(self.device)
        self.network.train()
        steps = self.material.steps(position.epoch - 1, position.batch, processes.rank, processes.size)
        for step in steps:
            if self.critic is not None:
                step = self.critic.draw(step, _mix(self.config.seed, position.step, processes.rank, 1))
            meter.add(self.optimize(step), step)
            position.batch += 1
            position.step += 1
            if position.step % self.config.log_every == 0:
                self._report(meter, show, began)
                began = self._save_if_due(began)
        self._report(meter, show, began)
        trained = time.monotonic() - began
        position.seconds += trained
        self._finish_epoch(show, (position.tokens - resumed_tokens) / max(trained, 1e-9))

    def optimize(self, step: Step) -> Tensor:
        """One optimizer step; returns this process's summed loss, still on the device."""
        config, position, device = self.config, self.position, self.device
        # Dropout's random numbers depend on seed, step and process alone: nothing of them needs saving to resume.
        torch.manual_seed(_mix(config.seed, position.step, self.processes.rank))
        set_rate(self.optimizer, rate_factor(config, position.step, self.total))
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=device)
        if len(step.inputs):
            images = None if step.images is None else step.images.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                words = (step.inputs.to(device), step.targets.to(device))
                loss = self.network(images, *words, config.label_smoothing, step.advantages)
            (loss * (config.loss_scale / step.tokens)).backward()
        self.processes.sum_gradients(self.parameters)
        if config.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, config.clip)
        self.optimizer.step()
        self.average.update(position.step + 1)
        return loss.detach()

    def _report(self, meter: _Meter, show: Display, began: float) -> None:
        """Log what was done since the last report, if anything."""
        if not meter.steps:
            return
        position = self.position
        done, seconds = meter.take(self.processes)
        if not math.isfinite(done.loss):
            raise CaptionerError(f"the loss is {done.loss} at step {position.step}; lower train.lr or train.clip")
        position.loss += done.loss
        position.tokens += done.tokens
        position.reward += done.reward
        position.captions += done.captions
        name, value = _aim(done)
        show.advance(done.steps, f"{name} {value:.3f}")
        if self.processes.first:
            rate = self.optimizer.param_groups[0]["lr"]
            facts = {name: value, "lr": rate, "tokens_per_second": done.tokens / seconds}
            elapsed = position.seconds + time.monotonic() - began
            self.log.write("steps", position.step, epoch=position.epoch, seconds=round(elapsed, 2), **facts)

    def _save_if_due(self, began: float) -> float:
        """Save within an epoch when the last time is long ago; returns from when time is still to be counted."""
        due = time.monotonic() - self.saved > 60 * self.config.save_minutes
        if not self.processes.agree(due, self.device):
            return began
        now = time.monotonic()
        self.position.seconds += now - began
        self._save_state()
        return now

    def _save_state(self) -> None:
        self.saved = time.monotonic()
        if self.processes.first:
            facts = {"experiment": to_mapping(self.experiment), "position": dataclasses.asdict(self.position)}
            save_state(self.state_path, self.network, self.optimizer, self.average.values, facts)

    def _finish_epoch(self, show: Display, speed: float) -> None:
        """Evaluate, keep the best, write the log and the state; every process learns whether to stop."""
        position, config = self.position, self.config
        began = time.monotonic()
        name, value = _aim(position)
        facts: dict[str, Any] = {f"train_{name}": value, "tokens_per_second": round(speed, 1)}
        stop = False
        due = position.epoch % config.evaluate_every == 0 or position.epoch == config.epochs
        if self.processes.first and due:
            facts |= self._evaluate()
            stop = bool(config.patience) and position.epoch - position.best_epoch >= config.patience
        position.seconds += time.monotonic() - began
        if self.processes.first:
            self.log.write("epoch", position.step, epoch=position.epoch, seconds=round(position.seconds, 2), **facts)
            show.say(self._line(facts))
        # Only the first process knows the scores. NaN stands for none.
        best = math.nan if position.best is None else position.best
        news = self.processes.tell([float(stop), best, position.best_epoch], self.device)
        position.finished, position.best_epoch = bool(news[0]), int(news[2])
        position.best = None if math.isnan(news[1]) else news[1]
        position.epoch += 1
        position.batch = position.tokens = position.captions = 0
        position.loss = position.reward = 0.0
        self._save_state()

    def _evaluate(self) -> dict[str, float]:
        """Dev scores of the weights that are kept, which become ``last`` and, if they win, ``best``."""
        position, config, decode = self.position, self.config, self.experiment.decoding
        searched = dataclasses.replace(decode, beam_size=config.dev_beam) if config.dev_beam else decode
        with self.average.applied():
            scores = evaluate(self.network, self.material, searched, self.precision)
            score = scores[self.metric] if self.metric != "dev_loss" else -scores["dev_loss"]
            names = ["last"]
            if position.best is None or score > position.best:
                position.best, position.best_epoch = score, position.epoch
                names.append("best")
            for name in names:
                self._save_checkpoint(self.output / f"{name}.safetensors", scores)
        return scores

    def _save_checkpoint(self, path: Path, scores: dict[str, float]) -> None:
        network, material = self.network, self.material
        states = None if network.backbone is None else [network.backbone.network.state_dict()]
        extra = {"experiment": to_mapping(self.experiment), "epoch": self.position.epoch, "dev": scores}
        save_checkpoint(
            path,
            network.decoder,
            material.vocabulary,
            material.backbones,
            self.experiment.decoding,
            extra=extra,
            backbone_states=states,
        )

    def _line(self, facts: dict[str, Any]) -> str:
        """One epoch in a line."""
        units = {"train_loss": ".3f", "train_reward": ".3f", "dev_loss": ".3f", "bleu4": ".2f", "cider": ".3f"}
        units["tokens_per_second"] = ".0f"
        numbers = "  ".join(f"{key} {facts[key]:{form}}" for key, form in units.items() if key in facts)
        best = "  *" if self.position.best_epoch == self.position.epoch else ""
        return f"epoch {self.position.epoch}/{self.config.epochs}  {numbers}  {self.position.seconds:.0f} s{best}"

    def _draw(self) -> None:
        """The curve so far; ``MissingDependency`` without matplotlib."""
        self.drawn = time.monotonic()
        draw_curve(self.output / "log.jsonl", self.output / "curve.png", self.experiment.name)


@dataclass
class _Sums:
    """What some steps came to, over all processes: the fields of ``Position`` that are summed."""

    steps: int = 0
    loss: float = 0.0
    tokens: int = 0
    reward: float = 0.0
    captions: int = 0


class _Meter:
    """Sums and time since the last report; asks the device for the loss only when it is read."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.clear()

    def clear(self) -> None:
        self.loss = torch.zeros_like(self.loss)
        self.sums = _Sums()
        self.since = time.monotonic()

    def add(self, loss: Tensor, step: Step) -> None:
        self.loss += loss
        self.sums.steps += 1
        self.sums.tokens += step.tokens
        self.sums.reward += step.reward
        self.sums.captions += step.captions

    @property
    def steps(self) -> int:
        return self.sums.steps

    def take(self, processes: World) -> tuple[_Sums, float]:
        """The sums and the seconds since the last time."""
        self.sums.loss = float(processes.sum(self.loss))
        taken = (self.sums, max(time.monotonic() - self.since, 1e-9))
        self.clear()
        return taken


def _aim(sums: Position | _Sums) -> tuple[str, float]:
    """What is optimized, by name: the mean reward of drawn captions (their loss says nothing), or nats a token."""
    return ("reward", sums.reward / sums.captions) if sums.captions else ("loss", sums.loss / sums.tokens)


def _device(wanted: str, processes: World) -> torch.device:
    """The device that a configuration names; each process of a machine takes its own GPU."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{processes.local_rank}" if wanted == "cuda" else wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"train.device {wanted}: {str(error).splitlines()[0]}; cpu is always there") from None
    return device


def _mix(*numbers: int) -> int:
    """One 63-bit seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _trained_state(source: Checkpoint | None, config: TrainConfig) -> dict[str, Tensor] | None:
    """The weights of the same backbone in the checkpoint that starts the run, if it holds them and no file is named."""
    if source is None or config.weights:
        return None
    for index, spec in enumerate(source.backbones):
        if spec.key == config.backbone:
            return source.backbone_states[index]
    return None


def _check_same(before: dict[str, Any], experiment: Experiment) -> None:
    """``ConfigError`` if an interrupted run had other settings than the one that would resume it."""
    was = _flat(to_mapping(Experiment())) | _flat(before)  # a setting that did not exist then was as by default
    now = _flat(to_mapping(experiment))
    changed = [
        f"{key} was {was[key]}, now {value}"
        for key, value in now.items()
        if was[key] != value and key.rsplit(".", 1)[-1] not in MAY_CHANGE
    ]
    if changed:
        advice = "start afresh with --no-resume or choose another output"
        raise ConfigError(f"{experiment.output} holds a run with other settings ({'; '.join(changed)}); {advice}")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
