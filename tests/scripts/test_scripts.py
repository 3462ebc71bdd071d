"""The scripts that make the default model, on a toy teacher and toy images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from captioner import load
from captioner.backbones.compact import CompactCNN
from captioner.backbones.spec import BackboneSpec
from captioner.checkpoint import load_checkpoint
from captioner.errors import exit_status
from captioner.features.writer import FeatureWriter
from scripts import distil_cnn, kitchen_corpus, pack_clip_captioner, pack_model
from tests.tiny import save_images, save_tiny

TEACHER = """
import torch
from torch import nn

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1280, 32, 32)
        self.classifier = nn.Linear(1280, 7)
    def preprocess(self, images):
        return images.float() / 255
    def feature_map(self, images):
        return self.layer(images).relu()
"""


WORDS = ("a", "rare", "thing", "thing0", "thing1", "thing2")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """The record of a teacher with random weights."""
    (tmp_path / "model.py").write_text(TEACHER)
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(TEACHER, scope)
    torch.manual_seed(0)
    save_file(scope["Toy"]().state_dict(), tmp_path / "model.safetensors")
    record = tmp_path / "teacher.yaml"
    record.write_text("architecture: model.py:Toy\nweights: model.safetensors\nsize: 64\noutput: feature_map()\n")
    return record


def distillation(teacher: Path, folder: Path, images: int) -> list[str]:
    """Arguments of a run on ``images`` images below ``folder``, half with features of five numbers and captions."""
    paths = save_images(folder / "images", images)
    lines = [f"{path.name}\timage {i} of {n}\n" for i, path in enumerate(paths[: images // 2]) for n in range(20)]
    (folder / "images" / "captions.tsv").write_text("".join(lines))
    spec = BackboneSpec("strong", size=32, dimension=5)
    for name, mirrored in (("plain", False), ("mirrored", True)):
        with FeatureWriter(folder / f"{name}.h5", spec, "0", mirrored=mirrored) as store:
            for i, path in enumerate(paths[: images // 2]):
                store.add(path.name, np.full(5, i + mirrored, np.float32))
    stores = f"--features {folder / 'plain.h5'} --features-mirrored {folder / 'mirrored.h5'}"
    data = f"--data {folder / 'images'} --format own"
    output = folder / "run" / "cnn.safetensors"
    return f"--teacher {teacher} --images {folder / 'images'} {stores} {data} -o {output} --batch-size 4".split()


def test_distillation_learns_resumes_and_starts_from_weights(teacher: Path, tmp_path: Path) -> None:
    """Would catch a student that is not trained, a restart that begins again, and weights that are not taken."""
    command, output = distillation(teacher, tmp_path, 6), tmp_path / "run" / "cnn.safetensors"
    assert distil_cnn.main([*command, "--steps", "2"]) == 0
    first = load_file(output)
    assert distil_cnn.main([*command, "--steps", "3"]) == 0
    second = load_file(output)
    CompactCNN().load_state_dict(second)
    assert int(second["stem.1.num_batches_tracked"]) == int(first["stem.1.num_batches_tracked"]) + 1
    assert any(not torch.equal(first[name], second[name]) for name in first if name.endswith("weight"))
    (tmp_path / "run" / "state.safetensors").unlink()
    output.rename(tmp_path / "start.safetensors")
    assert distil_cnn.main([*command, "--init", str(tmp_path / "start.safetensors"), "--steps", "1"]) == 0
    assert int(load_file(output)["stem.1.num_batches_tracked"]) == 4


def test_whole_images_go_with_their_own_features_and_words(teacher: Path, tmp_path: Path) -> None:
    """Would catch features or words of another image, and mirror images paired with those of the plain ones."""
    distillation(teacher, tmp_path, 6)
    pixels = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 192, 192).clone()
    pixels[..., 96:] += 100  # the right half is brighter
    names = sorted(path.name for path in (tmp_path / "images").iterdir() if path.suffix != ".tsv")
    captions = {name: [f"thing{i}"] * 20 + ["a thing"] * 20 + [f"thing{i} rare"] * 20 for i, name in enumerate(names)}
    stores = [tmp_path / "plain.h5"], [tmp_path / "mirrored.h5"]
    whole = distil_cnn.WholeImages(pixels, names, *stores, captions, 3)
    sides = set()
    for seed in range(8):
        images, wanted, words = whole.batch(64, np.random.default_rng(seed))
        levels = (images * distil_cnn.STD + distil_cnn.MEAN).round()
        for image, features, said in zip(levels, wanted * whole.std[0] + whole.mean[0], words, strict=True):
            mirrored = bool(image[0, 32, 0] > image[0, 32, -1])
            shares = {"a": 1 / 3, "rare": 1 / 3, "thing": 1 / 3, f"thing{int(image.min())}": 2 / 3}
            assert said.tolist() == pytest.approx([shares.get(word, 0) for word in WORDS])
            assert round(float(features[0])) == int(image.min()) + mirrored
            sides.add(mirrored)
    assert sides == {False, True}


def test_student_and_teacher_see_the_same_crop_with_and_without_colors(
    monkeypatch: pytest.MonkeyPatch, teacher: Path
) -> None:
    """Would catch a gray student beside a colored teacher, another crop for each, and colors that never go."""
    pixels = torch.randint(0, 256, (4, 3, 192, 192), dtype=torch.uint8, generator=torch.manual_seed(0))
    network = distil_cnn.load_teacher(teacher)
    seen: list[torch.Tensor] = []
    network.preprocess = lambda images: seen.append(images) or images.float()
    for share in (0.0, 1.0):
        monkeypatch.setattr(distil_cnn, "GRAY", share)
        images, _ = distil_cnn.Crops(pixels, network, 4).batch((64, 64), np.random.default_rng(0))
        levels = images * distil_cnn.STD + distil_cnn.MEAN
        torch.testing.assert_close(levels, seen[-1].float(), atol=0.01, rtol=0)
        assert bool((seen[-1].float().std(1) == 0).all()) == bool(share)


def test_a_teacher_without_a_classifier_is_one_line(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.py").write_text(TEACHER.replace("self.classifier", "self.other"))
    state = load_file(tmp_path / "model.safetensors")
    save_file({k.replace("classifier", "other"): v for k, v in state.items()}, tmp_path / "model.safetensors")
    assert distil_cnn.main(distillation(teacher, tmp_path, 2)) == 1
    assert "classifier" in capsys.readouterr().err


def test_packing_keeps_the_cnn_and_halves_the_file(tmp_path: Path) -> None:
    """Would catch a packed model with another CNN, another search than was asked for, or paths of who packed it."""
    settings = {"data": {"root": "/home/me/flickr8k", "features": ["/home/me/x.h5", "runs/y.h5"]}, "name": "2f"}
    source = save_tiny(tmp_path / "best.safetensors", extra={"experiment": settings})
    photo = save_images(tmp_path / "images", 1)[0]
    packed = tmp_path / "packed.safetensors"
    pack_model.pack(source, None, packed, beam_size=2, length_penalty=0.5)
    assert packed.stat().st_size < 0.6 * source.stat().st_size
    decode = load_checkpoint(packed).config.decoding
    assert (decode.beam_size, decode.length_penalty) == (2, 0.5)
    assert load_checkpoint(packed).extra["experiment"] == {
        "data": {"root": "flickr8k", "features": ["x.h5", "runs/y.h5"]},
        "name": "2f",
    }
    before, after = load_checkpoint(source).backbone_states[0], load_checkpoint(packed).backbone_states[0]
    assert before is not None and after is not None
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    assert load(packed).caption(photo)
    assert json.loads(json.dumps(load_checkpoint(packed).inputs[0].to_dict()))["weights"] == ""


def test_scripts_never_replace_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a checkpoint replaced by its packed copy, and a photo by weights or by a drawing."""
    source, photo = save_tiny(tmp_path / "best.safetensors"), save_images(tmp_path, 1)[0]
    distil = [
        "--teacher",
        source,
        "--images",
        tmp_path,
        "--features",
        source,
        "--features-mirrored",
        source,
        "--data",
        "x",
    ]
    (tmp_path / "video_info.json").write_text("my own words")
    commands = [
        *((pack_model.main, [source, "-o", path]) for path in (source, photo)),
        *((distil_cnn.main, [*distil, "-o", path]) for path in (source, photo)),
        *((pack_clip, [source, "--crf", source, "--backbone", "compact", "-o", path]) for path in (source, photo)),
        (kitchen_corpus.main, [tmp_path]),
        (readme_image, [photo, "-o", photo]),
    ]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for command, arguments in commands:
        assert command([str(argument) for argument in arguments]) == 2
        assert "is the same file as" in (error := capsys.readouterr().err) or "exists and is not" in error
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def pack_clip(arguments: list[str]) -> int:
    return exit_status(lambda: pack_clip_captioner.app(arguments, standalone_mode=False))


def readme_image(arguments: list[str]) -> int:
    script = pytest.importorskip("scripts.readme_image")
    paths = [Path(argument) for argument in arguments if argument != "-o"]
    return exit_status(lambda: script.command(paths[:1], "default", paths[1]))


def test_distillation_finds_images_as_captioning_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch hidden files, formats and links that one finder takes and the other does not."""
    photos = save_images(tmp_path / "photos", 2)
    (tmp_path / "photos" / ".hidden.png").write_bytes(b"")
    photos[1].rename(renamed := photos[1].with_suffix(".bmp"))
    (tmp_path / "more").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "a.tif").write_bytes(b"")
    (tmp_path / "list.txt").write_text(f"\ufeff{photos[0]}\n\nhttps://example.org/a.jpg\n", encoding="utf-8")
    found = distil_cnn.image_paths([tmp_path / "photos", tmp_path / "list.txt"])
    assert found == [photos[0], renamed, tmp_path / "photos" / "link" / "a.tif", photos[0]]
    assert "download the image first" in capsys.readouterr().err
