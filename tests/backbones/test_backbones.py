"""Every backbone family gives vectors as its record says, from images prepared as its own library prepares them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from captioner.backbones import FAMILIES, load_backbone
from captioner.backbones.backbone import Backbone
from captioner.backbones.compact import CompactCNN
from captioner.backbones.efficientnet_lite import VARIANTS, EfficientNetLite
from captioner.backbones.spec import BackboneSpec, pixels, prepare, ten_crops
from captioner.backbones.weights import fit_weights
from captioner.errors import BackboneError, MissingWeights

TINY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def both(self, x):
        y = self.stem(x)
        return y, self.head(y.mean((2, 3)))

    def forward(self, x):
        return self.both(x)[1]
"""


def make_image(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    colors = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize((width, height), Image.Resampling.BICUBIC)


def local_record(folder: Path, **fields: Any) -> Path:
    (folder / "net.py").write_text(TINY)
    namespace: dict[str, Any] = {}
    exec(TINY, namespace)
    torch.manual_seed(0)
    state = {name: value.half() for name, value in namespace["Net"]().state_dict().items() if "num_batches" not in name}
    save_file(state, folder / "net.safetensors")
    record = {"architecture": "net.py:Net", "weights": "net.safetensors", "size": 32, "resize": "squash", **fields}
    (folder / "record.yaml").write_text(yaml.safe_dump(record))
    return folder / "record.yaml"


def tiny_transformer(folder: Path, kind: str) -> Path:
    """A model with random weights as its authors publish theirs: configuration, processor and weights in a folder."""
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    vision = {**size, "image_size": 32, "patch_size": 8}
    mean = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.2, 0.25]}
    squash = {"size": {"height": 32, "width": 32}, "resample": 2, **mean}
    cut = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3, **mean}
    torch.manual_seed(0)
    if kind == "clip":
        text = {**size, "vocab_size": 50, "eos_token_id": 2, "bos_token_id": 1}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        model, processor = transformers.CLIPModel(config), transformers.CLIPImageProcessor(**cut)
    elif kind == "dinov2":
        model = transformers.Dinov2Model(transformers.Dinov2Config(**vision, mlp_ratio=2))
        processor = transformers.BitImageProcessor(**cut)
    else:  # a classifier: its published weights have no pooling layer
        model = transformers.ViTForImageClassification(transformers.ViTConfig(**vision))
        processor = transformers.ViTImageProcessor(**squash)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def random_state(name: str) -> dict[str, torch.Tensor]:
    from captioner.backbones.torchvision import classifier

    torch.manual_seed(0)
    return classifier(name).state_dict()


CASES = {
    "compact": 1280,
    "default": 1280,
    "efficientnet-lite:0": 1280,
    "torchvision:alexnet@fc6": 4096,
    "torchvision:alexnet": 4096,
    "torchvision:alexnet@fc8": 1000,
    "torchvision:resnet18": 512,
    "torchvision:resnet18@layer2.0.conv1": 128,
    "torchvision:squeezenet1_1@pool": 512,
    "torchvision:shufflenet_v2_x0_5@pool": 1024,
    "torchvision:mobilenet_v3_small": 1024,
    "torchvision:googlenet": 1024,
    "transformers:clip": 16,
    "transformers:dinov2": 16,
    "transformers:vit": 16,
    "local:record": 5,
    "pixels:8": 3 * 8 * 8,
}


def make(key: str, folder: Path) -> Backbone:
    family, _, name = key.partition(":")
    if family == "compact":
        torch.manual_seed(0)
        return load_backbone(key, state=CompactCNN().state_dict())
    if family == "efficientnet-lite":
        torch.manual_seed(0)
        return load_backbone(key, state=EfficientNetLite(VARIANTS[name]).state_dict())
    if family == "torchvision":
        return load_backbone(key, state=random_state(name.partition("@")[0]))
    if family == "transformers":
        return load_backbone(f"transformers:{tiny_transformer(folder, name)}")
    if family in ("default", "pixels"):
        return load_backbone(key)
    return load_backbone(f"local:{local_record(folder)}")


def test_every_family_has_a_case() -> None:
    assert {key.partition(":")[0] for key in CASES} == set(FAMILIES)


@pytest.mark.parametrize("key", CASES)
@torch.no_grad()
def test_gives_what_the_record_says(key: str, tmp_path: Path) -> None:
    """Dimension, a batch of one equal to a row of a batch, a record that survives JSON, weights that survive a move."""
    backbone = make(key, tmp_path)
    images = torch.stack([backbone.preprocess(make_image(seed)) for seed in range(3)])
    side = backbone.spec.size
    assert images.shape == (3, 3, side, side) and images.dtype == torch.float32
    features = backbone(images)
    assert features.shape == (3, CASES[key]) and backbone.spec.dimension == CASES[key]
    torch.testing.assert_close(backbone(images[1:2]), features[1:2], rtol=1e-3, atol=1e-4 * float(features.abs().max()))
    assert not torch.equal(features[0], features[1])
    assert BackboneSpec.from_dict(json.loads(json.dumps(backbone.spec.to_dict()))) == backbone.spec
    again = load_backbone(backbone.spec.key, state=backbone.network.state_dict())
    assert again.weights_digest == backbone.weights_digest and again.spec.digest == backbone.spec.digest
    torch.testing.assert_close(again(images), features)


@torch.no_grad()
def test_caffe_layers_are_the_activations_before_the_scores() -> None:
    """Would catch a feature taken before its ReLU, or a layer off by one."""
    state = random_state("alexnet")
    images = torch.randn(2, 3, 224, 224)
    layers = {name: load_backbone(f"torchvision:alexnet@{name}", state=state)(images) for name in ("fc6", "fc7", "fc8")}
    fc7 = torch.relu(layers["fc6"] @ state["classifier.4.weight"].T + state["classifier.4.bias"])
    fc8 = layers["fc7"] @ state["classifier.6.weight"].T + state["classifier.6.bias"]
    torch.testing.assert_close(layers["fc7"], fc7)
    torch.testing.assert_close(layers["fc8"], fc8)
    assert float(layers["fc6"].min()) == 0


@pytest.mark.parametrize(("width", "height"), [(60, 40), (33, 97), (640, 480), (1, 1), (1, 3000)])
@pytest.mark.parametrize("name", ["vgg16", "resnet50", "efficientnet_b1"])
def test_images_are_prepared_as_torchvision_does(name: str, width: int, height: int) -> None:
    """Up to rounding in each of two passes; would catch another crop, filter, order or scale."""
    from torchvision import models

    from captioner.backbones.torchvision import preset_spec

    image = make_image(1, width, height)
    expected = models.get_model_weights(name).DEFAULT.transforms()(image)
    spec = preset_spec(name, "pool")
    given = torch.from_numpy(prepare(image, spec))
    assert given.shape == expected.shape
    assert float((given - expected).abs().max()) <= 2.01 / 255 / min(spec.std)
    assert float((given - expected).abs().mean()) <= 0.05 / 255 / min(spec.std)


@pytest.mark.parametrize("kind", ["clip", "dinov2", "vit"])
@torch.no_grad()
def test_transformers_agree_with_their_own_pipeline(kind: str, tmp_path: Path) -> None:
    """Images up to rounding; equal features: CLIP's and DINOv2's pooled output, ViT's class token."""
    transformers = pytest.importorskip("transformers")
    folder = tiny_transformer(tmp_path, kind)
    backbone = load_backbone(f"transformers:{folder}")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    expected = processor(make_image(2), return_tensors="pt")["pixel_values"]
    given = backbone.preprocess(make_image(2))[None]
    assert float((given - expected).abs().max()) <= 2.01 / 255 / min(backbone.spec.std)
    if kind == "clip":
        output = transformers.CLIPVisionModel.from_pretrained(folder)(given).pooler_output
    elif kind == "dinov2":
        output = transformers.Dinov2Model.from_pretrained(folder)(given).pooler_output
    else:
        classifier = transformers.ViTForImageClassification.from_pretrained(folder)
        output = classifier.vit(given).last_hidden_state[:, 0]
    torch.testing.assert_close(backbone(given), output)


def test_crop_of_a_panorama_needs_little_memory() -> None:
    """Scaling all of a 1 x 100,000 image to 256 pixels across would take 20 gigabytes."""
    spec = BackboneSpec("x", size=224, shorter=256)
    assert pixels(Image.new("RGB", (1, 100_000), "red"), spec).shape == (224, 224, 3)


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_ten_crops_are_corners_center_and_mirrors(resize: str) -> None:
    spec = BackboneSpec("x", size=14, resize=resize)
    image = make_image(3, 32, 16)
    crops = ten_crops(image, spec)
    width = 16 if resize == "squash" else 32
    scaled = np.asarray(image.resize((width, 16), Image.Resampling.BILINEAR)).astype(int)
    corners = [scaled[:14, :14], scaled[:14, width - 14 :], scaled[2:, :14], scaled[2:, width - 14 :]]
    middle = (width - 14) // 2
    for crop, expected in zip(crops[:5].astype(int), [*corners, scaled[1:15, middle : middle + 14]], strict=True):
        assert np.abs(crop - expected).max() <= 1
    assert np.array_equal(crops[5:], crops[:5, :, ::-1])


@torch.no_grad()
def test_outputs_of_a_local_network(tmp_path: Path) -> None:
    """Layer, method, item of a method: each is averaged over space and checked against the record's dimension."""
    images = torch.randn(2, 3, 32, 32)
    by_layer = load_backbone(f"local:{local_record(tmp_path, output='stem', dimension=8)}")(images)
    by_method = load_backbone(f"local:{local_record(tmp_path, output='both()[0]')}")(images)
    torch.testing.assert_close(by_layer, by_method)
    with pytest.raises(BackboneError, match="says 9 numbers, the network gives 8"):
        load_backbone(f"local:{local_record(tmp_path, output='stem', dimension=9)}")(images)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "other.py:Net"}, "FILE.py:FUNCTION"),
        ({"architecture": "net.py:Missing"}, "failed: AttributeError"),
        ({"weights": "other.safetensors"}, "no weight file at .*other.safetensors"),
        ({"output": "stem.7"}, "no layer 'stem.7'; the outermost ones are stem, head"),
        ({"output": "both()"}, "is a tuple, not one tensor"),
        ({"output": "other()"}, "no method other"),
        ({"resize": "stretch"}, "'stretch' is not one of squash, crop"),
        ({"std": 0}, "above 0"),
        ({"mean": [1, 2]}, "one number or three"),
        ({"sise": 3}, "unknown field 'sise'"),
    ],
)
def test_wrong_records_say_what_is_wrong(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=message) as caught:
        load_backbone(f"local:{local_record(tmp_path, **fields)}")
    assert "\n" not in str(caught.value)


def test_weights_fit_exactly_or_not_at_all() -> None:
    """Would catch weights that are ignored because their names or shapes differ."""
    state = CompactCNN().state_dict()
    fit_weights(CompactCNN(), {name: value for name, value in state.items() if "num_batches" not in name}, "x")
    with pytest.raises(BackboneError, match="no place for head.0.weight2"):
        fit_weights(CompactCNN(), {**state, "head.0.weight2": state["head.0.weight"]}, "x")
    with pytest.raises(BackboneError, match=re.escape("head.0.weight is (1, 160, 1, 1)")):
        fit_weights(CompactCNN(), {**state, "head.0.weight": state["head.0.weight"][:1]}, "x")
    with pytest.raises(BackboneError, match=r"head.0.weight is torch.int64, but the architecture needs torch.float32"):
        fit_weights(CompactCNN(), {**state, "head.0.weight": state["head.0.weight"].long()}, "x")
    with pytest.raises(BackboneError, match=r"head.0.weight holds values that are not finite"):
        fit_weights(CompactCNN(), {**state, "head.0.weight": state["head.0.weight"] * float("nan")}, "x")
    del state["head.0.weight"]
    with pytest.raises(BackboneError, match="lack head.0.weight"):
        fit_weights(CompactCNN(), state, "x")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("torchvison:vgg16", "did you mean torchvision"),
        ("nonsense", "starts with one of compact, default, efficientnet-lite, local"),
        ("torchvision:resnet51", "similar names: resnet50"),
        ("torchvision:resnet18@fc7", "only VGG and AlexNet have fc7"),
        ("torchvision:resnet18@fc9", "no layer 'fc9'; the outermost ones are conv1"),
        ("compact:x", "takes no name"),
        ("compact", "it has no weights of its own; give a file with --weights"),
        ("default:x", "takes no name"),
        ("efficientnet-lite:9", "choose one of 0, 1, 2"),
        ("local:missing.yaml", "missing.yaml: cannot be read: No such file"),
    ],
)
def test_unknown_keys_name_the_known(key: str, message: str) -> None:
    """Would catch a wrong layer that is noticed behind a download, which the tests may not make."""
    with pytest.raises(BackboneError, match=message):
        load_backbone(key)


def test_missing_weights_say_which_file_to_put_where() -> None:
    """Without a network the message names the url and the exact path."""
    with pytest.raises(MissingWeights, match=r"https://\S+.pth elsewhere and put it at /\S*/resnet18-\w+.pth"):
        load_backbone("torchvision:resnet18")
    pytest.importorskip("transformers")
    with pytest.raises(MissingWeights, match=r"put config.json, \S+ and model.safetensors of \S+ into /\S*/some/model"):
        load_backbone("transformers:some/model")


def test_weight_files_of_ones_own(tmp_path: Path) -> None:
    """A PyTorch file works as safetensors do; anything else is named."""
    state = CompactCNN().state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    digests = {load_backbone("compact", tmp_path / name).weights_digest for name in ("a.pth", "a.safetensors")}
    assert digests == {load_backbone("compact", state=state).weights_digest}
    (tmp_path / "b.pth").write_bytes(b"nonsense")
    with pytest.raises(BackboneError, match="b.pth: not a readable weight file"):
        load_backbone("compact", tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: " + "[" * 20_000, "record.yaml: not YAML: maximum recursion"),
        ("size: 8\nsize: 9", "not YAML: the key 'size' occurs twice"),
        ("architecture: a.py:f\nweights: w\nsize: " + "9" * 5000, "size: expected int, got '9999"),
        ("architecture: a.py:f\nweights: w\nsize: 2024-13-45", "size: expected int, got '2024-13-45'"),
    ],
    ids=range(4),
)
def test_a_hostile_record_is_one_error(tmp_path: Path, content: str, message: str) -> None:
    """Would catch a traceback from YAML of any depth, and a wait for somebody to write into a pipe."""
    (tmp_path / "record.yaml").write_text(content)
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, match in (("record", message), ("pipe", "not a regular file")):
        with pytest.raises(BackboneError, match=match):
            load_backbone(f"local:{tmp_path / name}.yaml")


def test_a_weight_file_that_is_empty_is_one_error(tmp_path: Path) -> None:
    """Would catch an IndexError: PyTorch's own error has no text."""
    (tmp_path / "a.pth").touch()
    with pytest.raises(BackboneError, match="a.pth: not a readable weight file: EOFError"):
        load_backbone("compact", tmp_path / "a.pth")


def test_a_record_that_names_no_possible_file_is_one_error(tmp_path: Path) -> None:
    """Would catch an OSError: the system refuses to look for a name that is too long."""
    for architecture, weights in ((f"{'a' * 300}.py:make", "w.pth"), ("a.py:make", "a" * 300)):
        record = {"architecture": architecture, "weights": weights, "size": 8}
        (tmp_path / "record.yaml").write_text(yaml.safe_dump(record))
        torch.save({}, tmp_path / "w.pth")
        with pytest.raises(BackboneError, match="no weight file at|must be FILE.py:FUNCTION"):
            load_backbone(f"local:{tmp_path / 'record.yaml'}")


def test_a_record_that_a_model_names_runs_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a stranger's model that runs the Python file beside it."""
    record = local_record(tmp_path)
    (tmp_path / "net.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{TINY}")
    with pytest.raises(BackboneError, match="which runs a Python file; if you trust it, set CAPTIONER_TRUST"):
        load_backbone(f"local:{record}", trusted=False)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("CAPTIONER_TRUST_RECORDS", "1")
    load_backbone(f"local:{record}", trusted=False)
    assert (tmp_path / "ran").exists()
