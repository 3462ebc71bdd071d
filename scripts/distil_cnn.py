"""Train the default model's CNN from random initialization by distilling teachers on photographs.

Half of each batch are random crops, which student and teacher see alike: the student matches the teacher's last feature
map and, through the teacher's own classifier, its class probabilities. A teacher that answers for every crop makes each
of the few photographs worth many (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and
consistent"). The other half are whole images, whose features by stronger, slower networks wait in feature stores
(`captioner extract`, also with `--mirror`); a linear map of the student's features, thrown away at the end, has to give
them, and the words of the captions that people wrote. Student resolution grows late in training (Tan & Le 2021,
EfficientNetV2, section 4).

    python -m scripts.distil_cnn --teacher teacher.yaml --images FOLDER_OR_LIST... --features F.h5... \\
        --features-mirrored M.h5... --data FOLDER -o runs/cnn/cnn.safetensors

The teacher is a backbone record (captioner/backbones/local.py) whose network has `preprocess` (uint8 images to its
input), `feature_map` (to 1280 channels) and `classifier`. A list is a text file of image paths, one a line. The whole
images are those that have captions in the data set and features, under their file names, in all stores. Restarting
the same command resumes at the last checkpoint.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from captioner.backbones import load_backbone
from captioner.backbones.compact import FEATURES, CompactCNN
from captioner.backbones.weights import fit_weights, read_weights
from captioner.cli.program import choice, create_app, run
from captioner.config import TrainConfig
from captioner.data import READERS, read_dataset
from captioner.data.images import find_images, open_image
from captioner.data.records import read_lines
from captioner.errors import BackboneError, FeatureStoreError, ImageError, print_error
from captioner.features.store import FeatureStore
from captioner.files import SAFETENSORS, atomic_path, check_output
from captioner.text.tokenizers import tokenize
from captioner.train.optim import make_optimizer, rate_factor, set_rate
from captioner.train.state import load_state, save_state

STORED = 192  # side in pixels at which the photographs wait in memory
LOG_EVERY = 50  # steps
WEIGHT_DECAY = 0.05
SAVE_EVERY = 200
GRAY = 0.05  # share of the crops without colors
LEAST_CAPTIONS = 30  # of the photographs' captions that a word must be in for the CNN to learn it
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None] * 255
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255


def image_paths(sources: list[Path]) -> list[Path]:
    """Images below each folder and named in each list, sorted within a source."""
    paths: list[Path] = []
    for source in sources:
        lines = [] if source.is_dir() else read_lines(source)
        for found in find_images(["-"] if lines else [str(source)], lines):
            if isinstance(found, ImageError):
                print_error(f"error: {found}")
            else:
                paths.append(found)
    return paths


def load_images(paths: list[Path], cache: Path) -> Tensor:
    """All images squeezed to (N, 3, STORED, STORED) uint8; kept in ``cache`` for the next start."""
    if cache.exists():
        pixels = np.load(cache, mmap_mode="r")
        if len(pixels) == len(paths):
            return torch.from_numpy(np.array(pixels))
    pixels = np.empty((len(paths), 3, STORED, STORED), np.uint8)
    for row, path in enumerate(paths):
        small = open_image(path).resize((STORED, STORED), Image.Resampling.BICUBIC)
        pixels[row] = np.asarray(small).transpose(2, 0, 1)
    with atomic_path(cache) as temporary, temporary.open("wb") as stream:
        np.save(stream, pixels)
    return torch.from_numpy(pixels)


def load_teacher(record: Path) -> Any:
    """The network of a backbone record (captioner/backbones/local.py), in bfloat16."""
    network = load_backbone(f"local:{record}").network
    for part in ("preprocess", "feature_map", "classifier"):
        if not hasattr(network, part):
            raise BackboneError(f"{record}: a teacher needs {part}, which {type(network).__name__} has not")
    return network.requires_grad_(False).bfloat16().to(memory_format=torch.channels_last)


def random_crop(image: Tensor, least_area: float, rng: np.random.Generator) -> Tensor:
    """A random part (1, 3, h, w) of an image (1, 3, STORED, STORED), at least this share of it; now and then all."""
    area = rng.uniform(least_area, 1.0) if rng.random() < 0.8 else 1.0
    aspect = math.exp(rng.uniform(-0.25, 0.25))
    height = min(STORED, round(STORED * math.sqrt(area / aspect)))
    width = min(STORED, round(STORED * math.sqrt(area * aspect)))
    top, left = rng.integers(STORED - height + 1), rng.integers(STORED - width + 1)
    return image[:, :, top : top + height, left : left + width]


def gray(image: Tensor) -> Tensor:
    """An image (1, 3, h, w), uint8, without its colors."""
    light = (image.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    return light.round().to(torch.uint8).expand_as(image)


def squeeze(crop: Tensor, size: int) -> Tensor:
    """A crop (1, 3, h, w) as (1, 3, size, size), uint8."""
    return F.interpolate(
        crop.contiguous(memory_format=torch.channels_last), (size, size), mode="bilinear", antialias=True
    )


def normalized(views: list[Tensor]) -> Tensor:
    """Views (1, 3, S, S), uint8, as the student's input (B, 3, S, S)."""
    return (torch.cat(views).float() - MEAN) / STD


def distillation_loss(student_map: Tensor, teacher_map: Tensor, classifier: nn.Module, temperature: float) -> Tensor:
    """Feature-map error relative to the teacher's variance, plus KL of the class probabilities (nats).

    Maps (B, 1280, h, w) and (B, 1280, H, W); the teacher's is pooled to the student's grid.
    """
    target = F.adaptive_avg_pool2d(teacher_map, (student_map.shape[2], student_map.shape[3]))
    error = (student_map - target).square().mean() / target.var()
    pooled = student_map.mean((2, 3)) - target.mean((2, 3))
    pooled_error = pooled.square().mean() / target.mean((2, 3)).var()
    wanted = F.log_softmax(classifier(teacher_map.mean((2, 3))) / temperature, -1)
    given = F.log_softmax(classifier(student_map.mean((2, 3))) / temperature, -1)
    divergence = F.kl_div(given, wanted, log_target=True, reduction="batchmean")
    return error + pooled_error + 0.5 * divergence


class Crops:
    """Batches of (student images, teacher maps): random crops, mirrored half of the time."""

    def __init__(self, pixels: Tensor, teacher: Any, count: int) -> None:
        self.pixels, self.teacher, self.count = pixels, teacher, count

    @torch.no_grad()
    def batch(self, sizes: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Student images (B, 3, S, S) and teacher maps (B, 1280, h, w), at the student's and the teacher's size."""
        crops = []
        for row in rng.choice(len(self.pixels), self.count, replace=False):
            crop = random_crop(self.pixels[row : row + 1], 0.3, rng)
            crop = crop.flip(3) if rng.random() < 0.5 else crop
            crops.append(gray(crop) if rng.random() < GRAY else crop)
        large = torch.cat([squeeze(crop, sizes[1]) for crop in crops])
        inputs = self.teacher.preprocess(large).bfloat16().contiguous(memory_format=torch.channels_last)
        return normalized([squeeze(crop, sizes[0]) for crop in crops]), self.teacher.feature_map(inputs).float()


def words_of(captions: list[Sequence[str]]) -> Tensor:
    """The share of each image's captions that hold each word (N, W), for words in many captions."""
    said = [Counter(word for text in texts for word in set(tokenize(text))) for texts in captions]
    total = Counter(word for held in said for word in held.elements())
    common = [word for word in sorted(total) if total[word] >= LEAST_CAPTIONS]
    shares = [[held[word] / len(texts) for word in common] for held, texts in zip(said, captions, strict=True)]
    return torch.tensor(shares)


def word_loss(given: Tensor, wanted: Tensor, prior: Tensor) -> Tensor:
    """Cross entropy of words (B, W) from logits, relative to that of guessing each by its frequency (W,)."""
    guessed = torch.special.entr(prior) + torch.special.entr(1 - prior)
    entropy: Tensor = F.binary_cross_entropy_with_logits(given, wanted, reduction="sum") / len(given)
    loss: Tensor = entropy / guessed.sum().clamp(min=1e-6)
    return loss


class WholeImages:
    """Batches of (student images, wanted features, words): nearly whole images, mirrored half of the time."""

    def __init__(
        self,
        pixels: Tensor,
        names: list[str],
        plain: list[Path],
        mirrored: list[Path],
        captions: Mapping[str, Sequence[str]],
        count: int,
    ) -> None:
        stores = [[FeatureStore(path) for path in plain], [FeatureStore(path, mirrored=True) for path in mirrored]]
        held = [captions.keys(), *(set(store.ids) for store in stores[0])]
        self.rows = [row for row, name in enumerate(names) if all(name in each for each in held)]
        self.pixels, self.count = pixels, count
        if len(self.rows) < count:
            found = f"holds {len(self.rows)} of the images that have captions"
            raise FeatureStoreError(f"{plain[0]}: {found}, half a batch is {count}")
        ids = [names[row] for row in self.rows]
        both = np.stack([np.concatenate([store.get(ids) for store in side], 1) for side in stores])
        self.mean, self.std = both.mean((0, 1)), both.std((0, 1)) + 1e-6
        self.features = both.astype(np.float16)  # (2, N, D)
        self.words = words_of([captions[name] for name in ids])  # (N, W)

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, S, S), features (B, D) of mean 0 and variance 1 over the images, and words (B, W)."""
        views, wanted = [], []
        chosen = rng.choice(len(self.rows), self.count, replace=False)
        for index in chosen:
            view = random_crop(self.pixels[self.rows[index]][None], 0.75, rng)
            side = int(rng.random() < 0.5)
            views.append(squeeze(view.flip(3) if side else view, size))
            wanted.append((self.features[side, index] - self.mean) / self.std)
        return normalized(views), torch.from_numpy(np.stack(wanted)).float(), self.words[chosen]


class Student(nn.Module):
    """The CNN, and the linear map from its features to what is wanted of whole images (``wanted`` numbers)."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.cnn = CompactCNN()
        self.match = nn.Linear(FEATURES, wanted)

    def forward(self, images: Tensor, crops: int) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S), crops first, to the crops' maps (crops, 1280, h, w), and the others mapped."""
        maps = self.cnn.feature_map(images).float()
        return maps[:crops], self.match(maps[crops:].mean((2, 3)))


class RunLog:
    """Mean losses, every ``LOG_EVERY`` steps, on stdout and as JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path, self.started = path, time.monotonic()
        self.losses: list[dict[str, float]] = []

    def add(self, step: int, **losses: float) -> None:
        self.losses.append(losses)
        if step % LOG_EVERY == 0:
            means = {name: round(sum(each[name] for each in self.losses) / len(self.losses), 4) for name in losses}
            record = {"step": step, **means, "seconds": round(time.monotonic() - self.started, 1)}
            with self.path.open("a") as stream:
                stream.write(json.dumps(record) + "\n")
            print(record, flush=True)
            self.losses.clear()


def distil(
    teacher_record: Annotated[Path, typer.Option("--teacher", help="Backbone record of the teacher.")],
    images: Annotated[list[Path], typer.Option(help="Image folders, or lists of image files; may be repeated.")],
    features: Annotated[list[Path], typer.Option(help="Stores of the whole images; may be repeated.")],
    features_mirrored: Annotated[list[Path], typer.Option(help="The same stores of mirrored images.")],
    data: Annotated[Path, typer.Option(help="Data set with captions of the whole images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights to write.")],
    data_format: Annotated[str, choice(sorted(READERS), "--format", help="The data set's format.")] = "flickr8k",
    init: Annotated[Path | None, typer.Option(help="Weights to start from.  [default: random ones]")] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 9600,
    batch_size: Annotated[int, typer.Option(min=2, max=4096, help="Images in a step, half of them crops.")] = 128,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    temperature: Annotated[float, typer.Option(help="Divides the logits of the classes.")] = 2.0,
    large_after: Annotated[float, typer.Option(help="Fraction of the steps at the smaller size.")] = 0.85,
    seed: Annotated[int, typer.Option(help="Seed of weights and crops.")] = 0,
) -> None:
    """The whole run."""
    check_output("-o", output, SAFETENSORS, [teacher_record, *images, *features, *features_mirrored, init])
    folder = output.parent
    folder.mkdir(parents=True, exist_ok=True)
    paths = image_paths(images)
    pixels = load_images(paths, folder / "images.npy")
    teacher = load_teacher(teacher_record)
    classifier: nn.Module = copy.deepcopy(teacher.classifier).float()
    half = batch_size // 2
    crops = Crops(pixels, teacher, half)
    names = [path.name for path in paths]
    captions = {record.image_id: record.captions for record in read_dataset(data_format, data)}
    whole = WholeImages(pixels, names, features, features_mirrored, captions, half)
    prior, depth = whole.words.mean(0), whole.features.shape[2]
    torch.manual_seed(seed)
    student = Student(depth + len(prior)).to(memory_format=torch.channels_last)
    if init:
        fit_weights(student.cnn, read_weights(init), "compact")
    config = TrainConfig(lr=lr, weight_decay=WEIGHT_DECAY)  # AdamW under a cosine, as decoders are trained
    optimizer = make_optimizer(config, [(student, config.lr)])
    state = folder / "state.safetensors"
    first = load_state(state, student, optimizer, [])["step"] if state.exists() else 0
    rich = f"{len(whole.rows)} with features and captions of {len(prior)} words"
    print(f"{len(pixels)} images, {rich}, from step {first}", flush=True)
    log = RunLog(folder / "distil.jsonl")
    for step in range(first, steps):
        rng = np.random.default_rng([seed, step])
        small = step < large_after * steps
        small_crops, teacher_map = crops.batch((128, 160) if small else (160, 192), rng)
        others, wanted, said = whole.batch(small_crops.shape[3], rng)
        batch = torch.cat([small_crops, others]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            student_map, given = student(batch, half)
        crop_loss = distillation_loss(student_map, teacher_map, classifier, temperature)
        whole_loss = F.mse_loss(given[:, :depth].float(), wanted)
        words_loss = word_loss(given[:, depth:].float(), said, prior)
        set_rate(optimizer, rate_factor(config, step, steps))
        optimizer.zero_grad(set_to_none=True)
        (crop_loss + 2 * whole_loss + 2 * words_loss).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        log.add(step + 1, crops=crop_loss.item(), whole=whole_loss.item(), words=words_loss.item())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            save_state(state, student, optimizer, [], {"step": step + 1})
    with atomic_path(output) as temporary:
        save_file({name: value.contiguous() for name, value in student.cnn.state_dict().items()}, temporary)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, distil), arguments)


if __name__ == "__main__":
    sys.exit(main())
