"""Train the default model's CNN from random initialisation by distilling a teacher on unlabelled photographs.

Each step shows student and teacher the same random crop; the student matches the teacher's last feature map and,
through the teacher's own classifier, its class probabilities. A teacher that answers for every crop makes each of
the few photographs worth many (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and
consistent"). Half of each batch is new; the other half are crops of earlier steps, mirrored with their answers, so that
the teacher works half as much. Student resolution grows late in training (Tan & Le 2021, EfficientNetV2, section 4).

    python -m scripts.distil_cnn --teacher teacher.yaml --images FOLDER_OR_LIST... -o runs/cnn/cnn.safetensors

The teacher is a backbone record (captioner/backbones/local.py) whose network has `preprocess` (uint8 pictures to its
input), `feature_map` (to 1280 channels) and `classifier`. A list is a text file of picture paths, one a line.
Restarting the same command resumes at the last checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from captioner.backbones import load_backbone
from captioner.backbones.compact import CompactCNN
from captioner.data.images import open_image
from captioner.errors import BackboneError, exit_status
from captioner.files import atomic_path
from captioner.train.state import load_state, save_state

STORED = 192  # side in pixels at which the photographs wait in memory
LOG_EVERY = 50  # steps
SAVE_EVERY = 200
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None] * 255
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255


def picture_paths(sources: list[Path]) -> list[Path]:
    """Pictures below each folder and named in each list, sorted within a source."""
    paths: list[Path] = []
    for source in sources:
        if source.is_dir():
            paths += sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
        else:
            paths += [Path(line) for line in source.read_text().splitlines() if line.strip()]
    return paths


def load_pictures(paths: list[Path], cache: Path) -> Tensor:
    """All pictures squeezed to (N, 3, STORED, STORED) uint8; kept in ``cache`` for the next start."""
    if cache.exists():
        pixels = np.load(cache, mmap_mode="r")
        if len(pixels) == len(paths):
            return torch.from_numpy(np.array(pixels))
    pixels = np.empty((len(paths), 3, STORED, STORED), np.uint8)
    for row, path in enumerate(paths):
        small = open_image(path).resize((STORED, STORED), Image.Resampling.BICUBIC)
        pixels[row] = np.asarray(small).transpose(2, 0, 1)
    np.save(cache, pixels)
    return torch.from_numpy(pixels)


def load_teacher(record: Path) -> nn.Module:
    """The network of a backbone record (captioner/backbones/local.py), in bfloat16."""
    network = load_backbone(f"local:{record}").network
    for part in ("preprocess", "feature_map", "classifier"):
        if not hasattr(network, part):
            raise BackboneError(f"{record}: a teacher needs {part}, which {type(network).__name__} has not")
    return network.requires_grad_(False).bfloat16().to(memory_format=torch.channels_last)


def random_crops(pixels: Tensor, rows: list[int], sizes: tuple[int, int], rng: np.random.Generator) -> list[Tensor]:
    """One random crop a picture, mirrored half of the time, at each of ``sizes``: two (B, 3, S, S) uint8."""
    views: list[list[Tensor]] = [[], []]
    for row in rows:
        area = rng.uniform(0.3, 1.0) if rng.random() < 0.8 else 1.0
        aspect = math.exp(rng.uniform(-0.25, 0.25))
        height = min(STORED, round(STORED * math.sqrt(area / aspect)))
        width = min(STORED, round(STORED * math.sqrt(area * aspect)))
        top, left = rng.integers(STORED - height + 1), rng.integers(STORED - width + 1)
        crop = pixels[row : row + 1, :, top : top + height, left : left + width]
        if rng.random() < 0.5:
            crop = crop.flip(3)
        crop = crop.contiguous(memory_format=torch.channels_last)
        for view, size in zip(views, sizes, strict=True):
            view.append(F.interpolate(crop, (size, size), mode="bilinear", antialias=True))
    return [torch.cat(view) for view in views]


def distillation_loss(student_map: Tensor, teacher_map: Tensor, classifier: nn.Module, temperature: float) -> Tensor:
    """Feature-map error relative to the teacher's variance, plus KL of the class probabilities (nats).

    Maps (B, 1280, h, w) and (B, 1280, H, W); the teacher's is pooled to the student's grid.
    """
    target = F.adaptive_avg_pool2d(teacher_map, student_map.shape[-2:])
    error = (student_map - target).square().mean() / target.var()
    pooled = student_map.mean((2, 3)) - target.mean((2, 3))
    pooled_error = pooled.square().mean() / target.mean((2, 3)).var()
    wanted = F.log_softmax(classifier(teacher_map.mean((2, 3))) / temperature, -1)
    given = F.log_softmax(classifier(student_map.mean((2, 3))) / temperature, -1)
    divergence = F.kl_div(given, wanted, log_target=True, reduction="batchmean")
    return error + pooled_error + 0.5 * divergence


class Crops:
    """Batches of (student images, teacher maps): half new, half replayed in mirror image from the last 32 steps."""

    def __init__(self, pixels: Tensor, teacher: nn.Module, batch_size: int) -> None:
        self.pixels, self.teacher, self.count = pixels, teacher, batch_size // 2
        self.past: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def ask(self, sizes: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """New crops (B/2, 3, S, S), normalised, and the teacher's maps of them."""
        rows = rng.choice(len(self.pixels), self.count, replace=False).tolist()
        small, large = random_crops(self.pixels, rows, sizes, rng)
        inputs = self.teacher.preprocess(large).bfloat16().contiguous(memory_format=torch.channels_last)
        return (small.float() - MEAN) / STD, self.teacher.feature_map(inputs).float()

    def batch(self, sizes: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Student images (B, 3, S, S) and teacher maps (B, 1280, h, w)."""
        new = self.ask(sizes, rng)
        self.past = [pair for pair in self.past if pair[0].shape == new[0].shape]
        old = self.past.pop(rng.integers(len(self.past))) if len(self.past) == 32 else self.ask(sizes, rng)
        self.past.append(new)
        images = torch.cat([new[0], old[0].flip(3)]).contiguous(memory_format=torch.channels_last)
        return images, torch.cat([new[1], old[1].flip(3)])


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: 2 % linear warm-up, then a cosine to zero."""
    warmup = max(1, steps // 50)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimiser(student: nn.Module) -> torch.optim.Optimizer:
    """AdamW that decays kernels and leaves biases and normalisation alone; the rate is set at each step."""
    decayed = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}])


class RunLog:
    """Mean losses, every ``LOG_EVERY`` steps, on stdout and as JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path, self.started = path, time.monotonic()
        self.losses: list[float] = []

    def add(self, step: int, loss: float) -> None:
        self.losses.append(loss)
        if step % LOG_EVERY == 0:
            seconds = round(time.monotonic() - self.started, 1)
            record = {"step": step, "loss": sum(self.losses) / len(self.losses), "seconds": seconds}
            with self.path.open("a") as stream:
                stream.write(json.dumps(record) + "\n")
            print(record, flush=True)
            self.losses.clear()


def distil(options: argparse.Namespace) -> None:
    """The whole run; ``options`` are those of the command line."""
    folder = options.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    student = CompactCNN().to(memory_format=torch.channels_last)
    optimiser = make_optimiser(student)
    state = folder / "state.safetensors"
    first = load_state(state, student, optimiser, [])["step"] if state.exists() else 0
    pixels = load_pictures(picture_paths(options.images), folder / "pictures.npy")
    teacher = load_teacher(options.teacher)
    classifier = copy.deepcopy(teacher.classifier).float()
    crops = Crops(pixels, teacher, options.batch_size)
    print(f"{len(pixels)} pictures, {sum(p.numel() for p in student.parameters())} weights, from step {first}")
    log = RunLog(folder / "distil.jsonl")
    for step in range(first, options.steps):
        rng = np.random.default_rng([options.seed, step])
        small = step < options.large_after * options.steps
        images, teacher_map = crops.batch((128, 160) if small else (160, 192), rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            student_map = student.feature_map(images)
        loss = distillation_loss(student_map.float(), teacher_map, classifier, options.temperature)
        for group in optimiser.param_groups:
            group["lr"] = rate(step, options.steps, options.lr)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        log.add(step + 1, loss.item())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == options.steps:
            save_state(state, student, optimiser, [], {"step": step + 1})
    with atomic_path(options.output) as temporary:
        save_file({name: value.contiguous() for name, value in student.state_dict().items()}, temporary)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--large-after", type=float, default=0.75, help="fraction of the steps at the smaller size")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    return exit_status(lambda: distil(options))


if __name__ == "__main__":
    sys.exit(main())
