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
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from captioner.backbones import load_backbone
from captioner.backbones.compact import CompactCNN
from captioner.data.images import open_image
from captioner.errors import BackboneError

STORED = 192  # side in pixels at which the photographs wait in memory
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


def save(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    """Weights to ``path`` and what a restart needs beside it, each under a temporary name first."""
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, f"{path}.tmp")
    torch.save({"optimiser": optimiser.state_dict(), "step": step}, f"{path}.state.tmp")
    os.replace(f"{path}.tmp", path)
    os.replace(f"{path}.state.tmp", f"{path}.state")


def main() -> None:
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
    args = parser.parse_args()

    args.output.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    pixels = load_pictures(picture_paths(args.images), args.output.parent / "pictures.npy")
    teacher = load_teacher(args.teacher)
    classifier = copy.deepcopy(teacher.classifier).float()
    crops = Crops(pixels, teacher, args.batch_size)
    student = CompactCNN().to(memory_format=torch.channels_last)
    decayed = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=args.lr)
    first = 0
    if Path(f"{args.output}.state").exists():
        state = torch.load(f"{args.output}.state", weights_only=True)
        optimiser.load_state_dict(state["optimiser"])
        student.load_state_dict(load_file(args.output))
        first = state["step"]
    started = time.monotonic()
    print(f"{len(pixels)} pictures, {sum(p.numel() for p in student.parameters())} weights, from step {first}", flush=True)
    log = (args.output.parent / "distil.jsonl").open("a")
    total = 0.0
    for step in range(first, args.steps):
        rng = np.random.default_rng([args.seed, step])
        images, teacher_map = crops.batch((128, 160) if step < args.large_after * args.steps else (160, 192), rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            student_map = student.feature_map(images)
        loss = distillation_loss(student_map.float(), teacher_map, classifier, args.temperature)
        for group in optimiser.param_groups:
            group["lr"] = rate(step, args.steps, args.lr)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        total += loss.item()
        if (step + 1) % 50 == 0:
            record = {"step": step + 1, "loss": total / 50, "seconds": round(time.monotonic() - started, 1)}
            log.write(json.dumps(record) + "\n")
            log.flush()
            print(record, flush=True)
            total = 0.0
        if (step + 1) % 200 == 0 or step + 1 == args.steps:
            save(args.output, student, optimiser, step + 1)


if __name__ == "__main__":
    main()
