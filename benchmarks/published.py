"""The default model, compared with published captioners, and our adapter, compared with plain ``generate``.

The published models, BLIP-base and ViT-GPT2, have their real sizes and random weights, which take the same time and
need no download; each caption has ``LENGTH`` tokens, decoded greedily. Both sides of a row run in turns in one process,
or as whole processes if start and memory are measured.
"""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.captioning import caption
from benchmarks.images import PHOTO, make_images
from benchmarks.measure import AT_MOST, ROOT, Measurement, compare, once, rate, run_command, seconds
from benchmarks.memory import compare_memory
from benchmarks.startup import captioner_command
from captioner.data.images import open_image
from captioner.optional import require
from captioner.predictors import load

LENGTH = 12
FASTER, START, MEMORY, INSTALLED, ADAPTER = 10.0, 0.5, 0.5, 0.2, 0.95
"""Targets of the rows below."""


def measure(
    count: int = 4, rounds: int = 3, photo: Path = PHOTO, models: Mapping[str, Path] | None = None
) -> list[Measurement]:
    """Captions/s, start, peak memory and installed size of the default model over each of ``models``."""
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory() as place:
        images = make_images(Path(place, "images"), count, photo)
        folders = models or {name: save(name, Path(place, name)) for name in BUILDERS}
        for name, folder in folders.items():
            found += [_speed(name, folder, images, rounds), *_processes(name, folder, images, rounds)]
            found.append(_adapter(name, folder, images, rounds))
    return [*found, _installed()]


def _speed(name: str, folder: Path, images: list[Path], rounds: int) -> Measurement:
    default, other = load(), load(folder)
    return compare(
        f"captions of the default model over {name}",
        "captions/s",
        rate(len(images), lambda: caption(default, images, 64)),
        rate(
            len(images),
            lambda: [result.captions for result in other.results(images, method="greedy", max_length=LENGTH)],
        ),
        rounds=rounds,
        target=FASTER,
    )


def _processes(name: str, folder: Path, images: list[Path], rounds: int) -> list[Measurement]:
    ours = [*captioner_command(), "caption", *map(str, images)]
    theirs = [*ours, "--model", str(folder), "--method", "greedy", "--max-length", str(LENGTH)]
    one = [*captioner_command(), "caption", str(images[0])]
    other = [*one, "--model", str(folder), "--method", "greedy", "--max-length", str(LENGTH)]
    start = compare(
        f"one photo by the default model over {name}, whole process",
        "s",
        lambda: seconds(lambda: run_command(one)),
        lambda: seconds(lambda: run_command(other)),
        rounds=rounds,
        target=START,
        direction=AT_MOST,
    )
    memory = compare_memory(f"memory of the default model over {name}", ours, theirs, MEMORY)
    return [start, memory]


def _adapter(name: str, folder: Path, images: list[Path], rounds: int) -> Measurement:
    """Both from files to text, in batches of 8."""
    captioner = load(folder)
    plain = plain_generate(folder)
    return compare(
        f"captions of {name} by our adapter over plain generate",
        "captions/s",
        rate(len(images), lambda: captioner.caption(images, batch_size=8, method="greedy", max_length=LENGTH)),
        rate(len(images), lambda: plain(images)),
        rounds=rounds,
        target=ADAPTER,
    )


def plain_generate(folder: Path) -> Callable[[list[Path]], list[str]]:
    """The code in the documentation of transformers, in batches of 8."""
    import torch

    transformers = require("transformers", "transformers")
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def run(paths: list[Path]) -> list[str]:
        texts: list[str] = []
        for first in range(0, len(paths), 8):
            images = [open_image(path) for path in paths[first : first + 8]]
            inputs = processor(images=images, return_tensors="pt")
            ids = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=LENGTH)
            texts += tokenizer.batch_decode(ids, skip_special_tokens=True)
        return texts

    return run


def _installed() -> Measurement:
    """Bytes of the packages that the default model needs over those that published models need."""
    ours, theirs = (
        installed_bytes(*names) / 2**20 for names in (("captioner",), ("captioner", "torch", "transformers"))
    )
    return once("installed size for the default model over published ones", "MiB", ours, theirs, INSTALLED, AT_MOST)


def installed_bytes(*names: str) -> int:
    """Bytes of the files of packages and all their requirements, without extras; captioner is this checkout's."""
    seen: set[str] = set()
    waiting = list(names)
    total = 0
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            files, needed = _package(name)
        except metadata.PackageNotFoundError:  # for another system
            continue
        total += sum(path.stat().st_size for path in files if path.is_file())
        waiting += [re.split(r"[^\w.-]", one)[0] for one in needed if "extra ==" not in one]
    return total


def _package(name: str) -> tuple[list[Path], list[str]]:
    """The files of a package, and its requirements."""
    if name == "captioner":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return list((ROOT / "captioner").rglob("*")), project["dependencies"]
    distribution = metadata.distribution(name)
    files = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    return files, list(distribution.requires or ())


def save(name: str, folder: Path) -> Path:
    """Save a published model with random weights, and a tokenizer with the model's number of words."""
    transformers = require("transformers", "transformers")
    BUILDERS[name](transformers, folder)
    return folder


def _blip(transformers: Any, folder: Path) -> None:
    model = transformers.BlipForConditionalGeneration(transformers.BlipConfig())
    model.save_pretrained(folder)
    images = transformers.BlipImageProcessor(size={"height": 384, "width": 384})
    tokenizer = _tokenizer(transformers, model.config.text_config.vocab_size)
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)


def _vit_gpt2(transformers: Any, folder: Path) -> None:
    text = transformers.GPT2Config(add_cross_attention=True, is_decoder=True)
    build = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs
    model = transformers.VisionEncoderDecoderModel(build(transformers.ViTConfig(), text))
    model.generation_config.update(decoder_start_token_id=50256, pad_token_id=50256, eos_token_id=50256)
    model.save_pretrained(folder)
    transformers.ViTImageProcessor().save_pretrained(folder)
    _tokenizer(transformers, text.vocab_size).save_pretrained(folder)


def _tokenizer(transformers: Any, size: int) -> Any:
    from tokenizers import Tokenizer, models

    words = {"<unk>": 0, **{f"w{number}": number for number in range(1, size)}}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<unk>")), unk_token="<unk>", pad_token="<unk>"
    )


BUILDERS: dict[str, Callable[[Any, Path], None]] = {"BLIP-base": _blip, "ViT-GPT2": _vit_gpt2}
"""Builders by the model's name; arguments are ``transformers`` and the folder."""
