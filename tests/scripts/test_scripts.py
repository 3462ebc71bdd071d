"""The scripts that make the models that ship, on toy networks and toy images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from captioner import load
from captioner.backbones.compact import CompactCNN
from captioner.backbones.efficientnet_lite import VARIANTS, EfficientNetLite
from captioner.checkpoint import load_checkpoint
from captioner.data.records import Captioned
from captioner.errors import exit_status
from scripts import kitchen_corpus, pack_clip_captioner, pack_model, train_cnn
from tests.tiny import save_images, save_tiny

TEACHER = """
import torch
from torch import nn

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 32, 32)
    def preprocess(self, images):
        return images.float() / 255
    def features(self, images):
        return self.layer(images).relu().mean((2, 3))
"""


@pytest.fixture
def training(tmp_path: Path) -> list[str]:
    """Arguments for a network of random weights, six captioned images and a teacher of five features."""
    (tmp_path / "model.py").write_text(TEACHER)
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(TEACHER, scope)
    torch.manual_seed(0)
    save_file(scope["Toy"]().state_dict(), tmp_path / "model.safetensors")
    record = tmp_path / "teacher.yaml"
    record.write_text("architecture: model.py:Toy\nweights: model.safetensors\nsize: 64\noutput: features()\n")
    save_file(EfficientNetLite(VARIANTS["0"]).state_dict(), tmp_path / "lite0.safetensors")
    paths = save_images(tmp_path / "images", 6)
    said = [f"{path.name}\timage {i % 2} of {n}\n" for i, path in enumerate(paths) for n in range(20)]
    (tmp_path / "images" / "captions.tsv").write_text("".join(said))
    options = f"--weights {tmp_path}/lite0.safetensors --data {tmp_path}/images --teacher local:{record} --workers 0"
    return f"efficientnet-lite:0 {options} --batch-size 3 -o {tmp_path}/run/cnn.safetensors".split()


def test_the_cnn_learns_and_goes_on_where_it_was(training: list[str], tmp_path: Path) -> None:
    """Would catch a network that is not trained, a restart that begins again, and a classifier that is lost."""
    output = tmp_path / "run" / "cnn.safetensors"
    assert train_cnn.main([*training, "--epochs", "1"]) == 0
    first = {name: tensor.clone() for name, tensor in load_file(output).items()}  # the file is replaced
    assert train_cnn.main([*training, "--epochs", "1.5"]) == 0
    second = load_file(output)
    EfficientNetLite(VARIANTS["0"]).load_state_dict(second)
    counted = [int(state["stem.1.num_batches_tracked"]) for state in (first, second)]
    assert counted == [2, 3]
    for name in ("stem.0.weight", "classifier.weight"):
        assert not torch.equal(first[name], second[name])
    assert train_cnn.main([*training, "--epochs", "1.5", "--seed", "1"]) == 2  # not the old run's weights again


def test_a_cnn_without_a_classifier_is_one_line(training: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    del training[1:3]
    assert train_cnn.main(["compact", *training[1:], "--weights", str(weights_of_compact(training))]) == 1
    assert "compact: its network has no classifier to keep" in capsys.readouterr().err


def weights_of_compact(training: list[str]) -> Path:
    path = Path(training[-1]).with_name("compact.safetensors")
    path.parent.mkdir(exist_ok=True)
    save_file(CompactCNN().state_dict(), path)
    return path


def test_words_of_a_photograph_are_shares_of_its_captions() -> None:
    """Would catch words of another photograph, words counted twice in one caption, and rare words."""
    said = [["a dog and a dog", "one dog"], ["a cat", "a dog"]] * 15
    records = [Captioned(f"{index}.jpg", None, tuple(texts), "train") for index, texts in enumerate(said)]
    shares = train_cnn.words_of(records)  # "cat" and "one" are in 15 captions
    assert shares[:2].tolist() == [[0.5, 1.0], [1.0, 0.5]]  # of "a" and "dog"


def test_networks_of_any_size_see_the_same_part_of_a_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a gray student beside a colored teacher, another crop for each, and crops that are never mirrored."""
    across = torch.linspace(0, 255, 224).expand(3, 224, 224)
    pixels = torch.stack([across, across]).to(torch.uint8) * torch.tensor([1, 0, 1], dtype=torch.uint8)[:, None, None]
    sides = set()
    for gray in (0.0, 1.0):
        monkeypatch.setattr(train_cnn, "GRAY", gray)
        for seed in range(8):
            images, maps = train_cnn.views(pixels, torch.tensor([0, 1]), [seed])
            large, small = (train_cnn.cut(images, maps, size) for size in (64, 32))  # (B, S, S, 3)
            halved = torch.nn.functional.avg_pool2d(large.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
            torch.testing.assert_close(halved[:, 1:-1, 1:-1], small[:, 1:-1, 1:-1], atol=2, rtol=0)
            assert bool((large.std(3) < 1e-3).all()) == bool(gray)
            sides |= {bool(one[16, 4].sum() > one[16, -4].sum()) for one in small}
    assert sides == {False, True}


def test_every_photograph_comes_once_before_any_comes_twice() -> None:
    """Would catch batches at the end of a pass that repeat or leave out photographs."""
    rows = torch.cat([train_cnn.order(10, 4, step, seed=0) for step in range(5)]).tolist()
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]


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
    cnn = ["efficientnet-lite:0", "--data", tmp_path, "--weights", source]
    (tmp_path / "video_info.json").write_text("my own words")
    commands = [
        *((pack_model.main, [source, "-o", path]) for path in (source, photo)),
        *((train_cnn.main, [*cnn, "-o", path]) for path in (source, photo)),
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
