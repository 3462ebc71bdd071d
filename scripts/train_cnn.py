"""Train the default model's CNN: from ImageNet weights, to predict the words of captions.

    python -m scripts.train_cnn efficientnet-lite:2 --data runs/default/captions.jsonl --teacher local:b4.yaml \\
        -o runs/default/cnn.safetensors

Each step takes random crops of photos, half of them mirrored and one in twenty gray, and trains three predictions from
the network's features. Two linear maps, which are discarded at the end, predict the features that stronger networks
(``--teacher``, backbone keys) compute for the same crop (Beyer et al. 2022, "Knowledge distillation: A good teacher is
patient and consistent"), and the words of the photo's captions. The network's own classifier predicts the ImageNet
classes that it gave before the training, so that it keeps recognizing them.

The saved weights are an exponential moving average. The same command resumes an interrupted run.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from captioner.backbones import load_backbone
from captioner.backbones.backbone import Backbone
from captioner.backbones.onnx import WORTH_A_GRAPH, fastest_backbone
from captioner.backbones.spec import normalize
from captioner.cli.program import choice, create_app, run
from captioner.config import TrainConfig
from captioner.data import READERS, read_dataset
from captioner.data.images import open_image
from captioner.data.records import Captioned
from captioner.devices import find_device
from captioner.errors import BackboneError, DataError, UsageError
from captioner.files import SAFETENSORS, atomic_path, check_output
from captioner.precision import supports_bfloat16
from captioner.text.tokenizers import tokenize
from captioner.train.ema import WeightAverage
from captioner.train.optim import make_optimizer, rate_factor, set_rate
from captioner.train.state import load_state, read_metadata, save_state

STORED = 224  # side in pixels of the photos in memory
LOG_EVERY = 50  # steps
GRAY = 0.05  # share of the crops without colors
LEAST_AREA = 0.4  # smallest share of a photo that a crop shows
WHOLE = 0.3  # share of the crops that show the whole photo
LEAST_CAPTIONS = 30  # fewest captions that a word must be in to be learned
CLIP = 5.0  # largest norm of the gradient


class _Pixels(Dataset[np.ndarray]):
    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        small = open_image(self.paths[index]).resize((STORED, STORED), Image.Resampling.BICUBIC)
        return np.array(small).transpose(2, 0, 1)


def load_images(paths: Sequence[Path], workers: int, device: torch.device) -> Tensor:
    """All images, squeezed to (N, 3, STORED, STORED) uint8, on the device."""
    batches = DataLoader(_Pixels(paths), batch_size=64, num_workers=workers)
    pixels = torch.empty(len(paths), 3, STORED, STORED, dtype=torch.uint8)
    for number, batch in enumerate(batches):
        pixels[64 * number : 64 * number + len(batch)] = batch
    return pixels.to(device)


def random_crops(images: Tensor, seed: Sequence[int]) -> Tensor:
    """Affine maps (B, 2, 3) for ``cut`` of random crops of (B, 3, S, S), half of them mirrored."""
    rng = np.random.default_rng(seed)
    count = len(images)
    area = np.where(rng.random(count) < WHOLE, 1.0, rng.uniform(LEAST_AREA, 1.0, count))
    aspect = np.exp(rng.uniform(-0.25, 0.25, count))
    wide, high = np.minimum(1, np.sqrt(area * aspect)), np.minimum(1, np.sqrt(area / aspect))
    across, down = rng.uniform(-1, 1, count) * (1 - wide), rng.uniform(-1, 1, count) * (1 - high)
    side = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    maps = np.zeros((count, 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 0, 2], maps[:, 1, 1], maps[:, 1, 2] = side * wide, across, high, down
    return torch.from_numpy(maps).to(images.device)


def cut(images: Tensor, maps: Tensor, size: int) -> Tensor:
    """Crops (B, size, size, 3) of images (B, 3, S, S), values 0..255 in float32."""
    grid = F.affine_grid(maps, [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False).permute(0, 2, 3, 1)


def views(pixels: Tensor, rows: Tensor, seed: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The chosen photos (B, 3, S, S) in float32, some of them gray, and the maps of their random crops."""
    images = pixels[rows.to(pixels.device)].float()
    light = (images * torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]).sum(1, keepdim=True)
    gray = torch.from_numpy(np.random.default_rng([*seed, 1]).random(len(rows)) < GRAY).to(images.device)
    return torch.where(gray[:, None, None, None], light.expand_as(images), images), random_crops(images, seed)


def words_of(records: Sequence[Captioned]) -> Tensor:
    """The share of each photo's captions that contain each word, (N, W), for words in many captions."""
    said = [Counter(word for text in record.captions for word in set(tokenize(text))) for record in records]
    total = Counter(word for held in said for word in held.elements())
    common = [word for word in sorted(total) if total[word] >= LEAST_CAPTIONS]
    column = {word: index for index, word in enumerate(common)}
    shares = torch.zeros(len(records), len(column))
    for row, (held, record) in enumerate(zip(said, records, strict=True)):
        for word in held.keys() & column.keys():
            shares[row, column[word]] = held[word] / len(record.captions)
    return shares


def word_loss(given: Tensor, wanted: Tensor, prior: Tensor) -> Tensor:
    """Cross-entropy of words (B, W) from logits, divided by that of predicting each word's frequency (W,)."""
    guessed = torch.special.entr(prior) + torch.special.entr(1 - prior)
    entropy: Tensor = F.binary_cross_entropy_with_logits(given, wanted, reduction="sum") / len(given)
    loss: Tensor = entropy / guessed.sum().clamp(min=1e-6)
    return loss


def class_loss(given: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence in nats from the wanted to the given classes; both are logits (B, C)."""
    return F.kl_div(given.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean")


class Teachers:
    """Backbones whose features of a crop the student learns to predict, scaled to mean 0 and variance 1."""

    def __init__(self, keys: Sequence[str], pixels: Tensor) -> None:
        self.backbones = [_fastest(_frozen(load_backbone(key)).to(pixels.device), pixels.device) for key in keys]
        rows = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:512]
        parts = [self._features(*views(pixels, some, [0, index])) for index, some in enumerate(torch.split(rows, 64))]
        seen = torch.cat(parts)  # (N, D)
        self.mean, self.std = seen.mean(0), seen.std(0) + 1e-6

    def __call__(self, images: Tensor, maps: Tensor) -> Tensor:
        """Features (B, D) of the crops of images (B, 3, S, S), concatenated over the teachers."""
        return (self._features(images, maps) - self.mean) / self.std

    @torch.no_grad()
    def _features(self, images: Tensor, maps: Tensor) -> Tensor:
        found = [_see(backbone, prepared(images, maps, backbone)) for backbone in self.backbones]
        return torch.cat(found, 1) if found else images.new_zeros(len(images), 0)


class Student(nn.Module):
    """The network, and the linear map from its features to teachers' features and caption words."""

    def __init__(self, backbone: Backbone, wanted: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.match = nn.Linear(backbone.spec.dimension, wanted)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared crops (B, 3, S, S) to logits of ImageNet's classes (B, 1000) and features mapped (B, wanted)."""
        features = _see(self.backbone, inputs)
        classifier: Any = self.backbone.network.classifier
        return classifier(features), self.match(features)


def prepared(images: Tensor, maps: Tensor, backbone: Backbone) -> Tensor:
    """Crops of images (B, 3, S, S), normalized for a backbone."""
    inputs: Tensor = normalize(cut(images, maps, backbone.spec.size), backbone.spec)
    return inputs.contiguous(memory_format=torch.channels_last)


def _see(backbone: Backbone, inputs: Tensor) -> Tensor:
    """Features (B, D) in float32 of prepared crops; the network runs in bfloat16 if the device supports it."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=supports_bfloat16(inputs.device)):
        found: Tensor = backbone(inputs)
    return found.float()


def _frozen(backbone: Backbone) -> Backbone:
    return backbone.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _fastest(backbone: Backbone, device: torch.device) -> Backbone:
    """The frozen backbone in ONNX Runtime, on a CPU, if it can be written as a graph."""
    return fastest_backbone(backbone, WORTH_A_GRAPH, device=device, precision="float32")


class RunLog:
    """Writes mean losses, every ``LOG_EVERY`` steps, to stdout and as JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path, self.started = path, time.monotonic()
        self.losses: list[dict[str, Tensor]] = []

    def add(self, step: int, **losses: Tensor) -> None:
        self.losses.append({name: loss.detach() for name, loss in losses.items()})
        if step % LOG_EVERY == 0:
            means = {
                name: round(float(sum(each[name] for each in self.losses)) / len(self.losses), 4) for name in losses
            }
            record = {"step": step, **means, "seconds": round(time.monotonic() - self.started, 1)}
            with self.path.open("a") as stream:
                stream.write(json.dumps(record) + "\n")
            print(record, flush=True)
            self.losses.clear()


def training_records(data_format: str, data: Path) -> list[Captioned]:
    """The data set's training photos that have captions; raises ``DataError`` if there are none."""
    found = [record for record in read_dataset(data_format, data) if record.split == "train"]
    records = [record for record in found if record.captions and record.path is not None]
    if not records:
        raise DataError(f"{data}: no training photograph with captions is on this disk")
    return records


def train(
    key: Annotated[str, typer.Argument(metavar="backbone", help="Network to train, with a classifier.")],
    data: Annotated[Path, typer.Option(help="Photographs with captions.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights to write.")],
    data_format: Annotated[str, choice(sorted(READERS), "--format", help="The data's format.")] = "own",
    weights: Annotated[Path | None, typer.Option(help="Weights to start from instead of the backbone's own.")] = None,
    teacher: Annotated[list[str] | None, typer.Option(help="Backbone to learn from; may be repeated.")] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the photographs.")] = 8,
    batch_size: Annotated[int, typer.Option(min=2, max=4096, help="Photographs in a step.")] = 256,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the network; ten times that of the maps.")] = 5e-4,
    weight_decay: Annotated[float, typer.Option(help="AdamW's decay.")] = 0.02,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that open images.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda, as named by torch.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of crops and maps.")] = 0,
) -> None:
    """Train a backbone further on captioned photographs."""
    check_output("-o", output, SAFETENSORS, [data, weights])
    output.parent.mkdir(parents=True, exist_ok=True)
    where = find_device(device)
    records = training_records(data_format, data)
    pixels = load_images([record.path for record in records if record.path], workers, where)
    backbone = load_backbone(key, weights)
    if not hasattr(backbone.network, "classifier"):
        raise BackboneError(f"{key}: its network has no classifier to keep; choose efficientnet-lite:0, 1 or 2")
    before = copy.deepcopy(_frozen(backbone)).to(where)
    classify: Any = before.network.classifier
    before = _fastest(before, where)
    teachers, words = Teachers(teacher or (), pixels), words_of(records).to(where)
    prior, depth = words.mean(0), len(teachers.mean)
    torch.manual_seed(seed)
    student = Student(backbone.requires_grad_(True).train(), depth + len(prior)).to(where)
    config = TrainConfig(lr=lr, weight_decay=weight_decay)  # AdamW with a cosine schedule, as for decoders
    optimizer = make_optimizer(config, [(student.backbone, lr), (student.match, 10 * lr)])
    average = WeightAverage(student, 0.998)
    state = output.with_suffix(".state")
    settings: dict[str, Any] = {"backbone": key, "data": str(data), "format": data_format, "seed": seed}
    settings |= {"weights": str(weights or ""), "teachers": teacher or []}
    settings |= {"batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    if state.exists() and read_metadata(state).get("settings") != settings:
        raise UsageError(f"{state}: is of a run with other settings; remove it to start over")
    first = load_state(state, student, optimizer, average.values)["step"] if state.exists() else 0
    steps = max(1, math.ceil(epochs * len(records) / batch_size))
    print(f"{len(records)} photographs, {depth} features, {len(prior)} words, {steps} steps from {first}", flush=True)
    log, saved = RunLog(output.with_suffix(".jsonl")), time.monotonic()
    for step in range(first, steps):
        rows = order(len(records), batch_size, step, seed)
        images, maps = views(pixels, rows, [seed, step])
        inputs = prepared(images, maps, before)
        classes, given = student(inputs)
        with torch.no_grad():
            known = classify(_see(before, inputs))
        parts = {
            "classes": class_loss(classes, known),
            "features": F.mse_loss(given[:, :depth], teachers(images, maps)) if depth else classes.new_zeros(()),
            "words": word_loss(given[:, depth:], words[rows.to(where)], prior),
        }
        set_rate(optimizer, rate_factor(config, step, steps))
        optimizer.zero_grad(set_to_none=True)
        (0.3 * parts["classes"] + parts["features"] + 2 * parts["words"]).backward()
        nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimizer.step()
        average.update(step + 1)
        log.add(step + 1, **parts)
        if time.monotonic() - saved > 60 * config.save_minutes or step + 1 == steps:
            save_state(state, student, optimizer, average.values, {"step": step + 1, "settings": settings})
            saved = time.monotonic()
    with average.applied(), atomic_path(output) as temporary:
        found = {name: value.contiguous().cpu() for name, value in student.backbone.network.state_dict().items()}
        save_file(found, temporary)


def order(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """The rows of a step's batch: each row is used once before any is used twice."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    passes = {p: np.random.default_rng([seed, int(p), 2]).permutation(count) for p in set((places // count).tolist())}
    return torch.tensor([passes[place // count][place % count] for place in places.tolist()])


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, train), arguments)


if __name__ == "__main__":
    sys.exit(main())
