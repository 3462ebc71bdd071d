"""Classifiers: exported captioners, runs, published networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import nn

from captioner.backbones import efficientnet_lite as lite
from captioner.backbones import load_backbone
from captioner.backbones.imagenet import imagenet_classes
from captioner.checkpoint import load_checkpoint, save_checkpoint
from captioner.config import Experiment
from captioner.data.readers.mnist import CLASSES
from captioner.errors import BackboneError, CheckpointError, ImageError, MissingWeights, UsageError
from captioner.experiment import load_experiment
from captioner.export import export_onnx
from captioner.model_file import FORMAT, checksum
from captioner.models.lrcn import LRCN
from captioner.predictors.classifier import FirstLayer, ImageClassifier, OnnxNetwork, convolve, load_classifier, softmax
from captioner.predictors.torch_classifier import TorchNetwork
from captioner.tasks.images.learner import ImageLearner, predict_logits
from captioner.tasks.sentences.config import CaptioningConfig, FinetuneConfig
from captioner.text.vocabulary import SPECIALS, Vocabulary
from captioner.train.trainer import train
from tests import tiny
from tests.backbones.test_efficientnet_lite import CLASSES as NUMBERS
from tests.backbones.test_efficientnet_lite import EXAMPLES, packaged
from tests.labeled import draw_images, write_cifar10, write_mnist


def save_captioner(path: Path, finetuned: str = "") -> Path:
    """A captioner with random weights over EfficientNet-Lite0 with random weights, its layer of classes included."""
    torch.manual_seed(0)
    network = lite.EfficientNetLite(lite.VARIANTS["0"])
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean over all batches
    with torch.no_grad():  # statistics and weights by which classes differ from image to image
        network.train()(torch.randn(8, 3, 64, 64).cumsum(2).cumsum(3) / 30)
        network.classifier.weight.mul_(2)
    backbone = load_backbone("efficientnet-lite:0", state=network.state_dict())
    config = CaptioningConfig(model=tiny.LRCNConfig(wiring="1u", embedding_dim=4, hidden_dim=4, image_dim=4))
    config = CaptioningConfig(model=config.model, finetune=FinetuneConfig(backbone=finetuned))
    words = Vocabulary((*SPECIALS, "dog"))
    model = LRCN(config.model, len(words), backbone.spec.dimension)
    states = [network.state_dict()]
    save_checkpoint(path, "captioning", model, config, [backbone.spec], words, backbone_states=states)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tiny.save_images(tmp_path_factory.mktemp("images"), 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("exported")
    export_onnx(save_captioner(folder / "torch.safetensors"), folder / "onnx.safetensors")
    return folder / "onnx.safetensors"


def save_vit(path: Path, classes: int) -> str:
    """A classifier of transformers' with random weights and classes "label 0", ...; returns its name."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    labels = {number: f"label {number}" for number in range(classes)}
    config = transformers.ViTConfig(image_size=16, patch_size=8, id2label=labels, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(path)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(path)
    return f"transformers:{path}"


def run_of(folder: Path, name: str, *settings: str) -> tuple[Experiment, Path]:
    """A finished run of a configuration on a few images."""
    common = ("train.device=cpu", "train.epochs=1", "train.batch_size=16", "data.val=20")
    experiment = load_experiment(name, [*common, f"data.root={folder / 'data'}", f"output={folder / 'run'}", *settings])
    train(experiment, progress=False)
    return experiment, folder / "run"


def test_onnx_and_torch_name_the_same_classes(exported: Path, images: list[Path]) -> None:
    """Would catch a transposed layer of classes, a lost bias, and features of another layer."""
    light, full = load_classifier(str(exported)), load_classifier(str(exported), runtime="torch")
    assert isinstance(light.network, OnnxNetwork) and isinstance(full.network, TorchNetwork)
    for one, other in zip(light.results(images), full.results(images), strict=True):
        assert [score.name for score in one.classes] == [score.name for score in other.classes]
        np.testing.assert_allclose(*([s.probability for s in found.classes] for found in (one, other)), atol=1e-4)
    likeliest = [light.classify(image)[0].probability for image in images]
    assert np.ptp(likeliest) > 0.002, "images must differ, or the comparison shows nothing"


def test_the_first_layer_is_the_same_without_torch(exported: Path, images: list[Path]) -> None:
    """Would catch padding on the wrong side, and kernels that are not those of the file."""
    light, full = load_classifier(str(exported)), load_classifier(str(exported), runtime="torch")
    (kernels, maps), (wanted_kernels, wanted_maps) = light.first_layer(images[0]), full.first_layer(images[0])
    np.testing.assert_array_equal(kernels, wanted_kernels)
    np.testing.assert_allclose(maps, wanted_maps, atol=1e-4)
    assert maps.shape == (32, 112, 112)


@pytest.mark.parametrize("side", [7, 8])
def test_convolution_in_numpy_is_torch_s(side: int) -> None:
    """Would catch an odd side that is padded as an even one."""
    rng = np.random.default_rng(0)
    image, kernels = rng.random((3, side, side)), rng.random((4, 3, 3, 3))
    layer = lite.SameConv(3, 4, 3, 2)
    layer.weight.data = torch.from_numpy(kernels)
    wanted = layer(torch.from_numpy(image[None]))[0].detach().numpy()
    np.testing.assert_allclose(convolve(image, kernels, 2), wanted)


def test_classes_need_no_torch(exported: Path, images: list[Path], tmp_path: Path) -> None:
    """Would catch an import of torch on the way from a file to its classes, or to their explanation."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name in ('torch', 'torchvision', 'h5py', 'yaml', 'filelock', 'sacrebleu', 'matplotlib'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing)\n"
        "from captioner.cli.app import main\n"
        f"sys.argv = ['captioner', 'classify', '--model', {str(exported)!r}, '--json', {str(images[0])!r}, "
        f"'--explain', {str(tmp_path / 'out.png')!r}]\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["classes"][0]["name"] == load_classifier(str(exported)).classify(images[0])[0].name
    assert (tmp_path / "out.png").is_file()


def test_a_captioner_without_classes_says_so(tmp_path: Path) -> None:
    """Would catch classes from a layer whose features have changed since it was trained."""
    with pytest.raises(CheckpointError, match=r"no layer of classes.*--model efficientnet-lite:0"):
        load_classifier(str(tiny.save_tiny(tmp_path / "tiny.safetensors")))
    with pytest.raises(CheckpointError, match="was trained on for captions"):
        load_classifier(str(save_captioner(tmp_path / "tuned.safetensors", "efficientnet-lite:0")))


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_a_damaged_layer_of_classes_is_named(exported: Path, tmp_path: Path, damage: str) -> None:
    """Would catch classes numbered beyond the thousand names, and errors of numpy's."""
    tensors = load_file(exported)
    with safe_open(exported, "np") as stream:
        header = stream.metadata()
    weight = tensors.pop("backbone.0.classifier.weight")
    if damage == "shape":
        tensors["backbone.0.classifier.weight"] = np.repeat(weight, 2, 0)
    contents = json.loads(header[FORMAT])
    contents["checksum"] = checksum(tensors)
    save_file(tensors, tmp_path / "bad.safetensors", {FORMAT: json.dumps(contents)})
    with pytest.raises(CheckpointError, match=r"classifier.weight of its CNN is .*, not \(1000, 1280\)"):
        load_classifier(str(tmp_path / "bad.safetensors"))


def test_a_run_whose_input_is_another_is_refused(tmp_path: Path) -> None:
    """Would catch a header that sends images of other sizes, or none at all, into the network."""
    write_mnist(tmp_path / "data")
    _, run = run_of(tmp_path, "mnist-lenet")
    tensors = load_file(run / "best.safetensors")
    with safe_open(run / "best.safetensors", "np") as stream:
        header = stream.metadata()
    for change in ([], [{**json.loads(header[FORMAT])["inputs"][0], "size": 20}]):
        contents = {**json.loads(header[FORMAT]), "inputs": change}
        save_file(tensors, tmp_path / "bad.safetensors", {FORMAT: json.dumps(contents)})
        with pytest.raises(CheckpointError, match="one input, pixels of 28 x 28"):
            load_classifier(str(tmp_path / "bad.safetensors"))


def test_more_classes_than_names_are_refused(images: list[Path]) -> None:
    """Would catch a number without a name, and names shifted by one."""

    class Two:
        def probs(self, images: np.ndarray) -> np.ndarray:
            return np.full((len(images), 2), 0.5)

        def first_layer(self, image: np.ndarray) -> FirstLayer:
            raise NotImplementedError

    spec = lite.spec_of("0")
    with pytest.raises(CheckpointError, match="has 2 outputs but 3 class names"):
        ImageClassifier("two", ["a", "b", "c"], spec, Two()).classify(images[0], top=1)


def test_a_run_classifies_files_as_its_arrays(tmp_path: Path) -> None:
    """Would catch a photo that is prepared otherwise than training images, and digits read as colors."""
    for name, write, side, channels in (
        ("mnist-lenet", write_mnist, 28, 1),
        ("cifar10-cnn", write_cifar10, 32, 3),
    ):
        folder = tmp_path / name
        write(folder / "data")
        experiment, run = run_of(folder, name)
        checkpoint = load_checkpoint(run / "best.safetensors")
        learner = ImageLearner(checkpoint.model, checkpoint.inputs[0], channels)
        pixels, _ = draw_images(6, side, channels, 10, seed=3)
        logits = predict_logits(learner, torch.from_numpy(pixels), experiment.config.data.crop)
        classifier = load_classifier(str(run))
        for row, image in enumerate(pixels):
            path = folder / f"{row}.png"
            Image.fromarray(image.squeeze()).save(path)
            scores = dict(classifier.classify(path, top=10))
            found = [scores[label] for label in checkpoint.outputs.to_list()]
            np.testing.assert_allclose(found, logits.softmax(1)[row], atol=1e-5)
    assert load_classifier(str(tmp_path / "mnist-lenet" / "run")).classes == CLASSES


def test_a_network_of_rows_has_no_kernels_to_show(tmp_path: Path) -> None:
    """Would catch a traceback where there is nothing to draw."""
    write_cifar10(tmp_path / "data")
    _, run = run_of(tmp_path, "cifar10-gru", "model.hidden_dim=4")
    tiny.make_image(0).save(tmp_path / "image.png")
    with pytest.raises(UsageError, match="no convolution to show"):
        load_classifier(str(run)).first_layer(tmp_path / "image.png")


def test_unreadable_images_are_results_and_the_rest_goes_on(exported: Path, images: list[Path], tmp_path: Path) -> None:
    """Would catch a batch that ends at its first bad image, and results that shift by it."""
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    classifier = load_classifier(str(exported))
    results = list(classifier.results([images[0], tmp_path / "bad.jpg", images[1]], top=2, batch_size=2))
    assert [bool(result.error) for result in results] == [False, True, False]
    assert results[2].classes[0].name == classifier.classify(images[1])[0].name and len(results[2].classes) == 2
    with pytest.raises(ImageError, match="bad.jpg"):
        classifier.classify(tmp_path / "bad.jpg")


def test_numbers_out_of_range_are_refused(exported: Path) -> None:
    """Would catch a count that slices from the end, or a batch that fills the memory."""
    classifier = load_classifier(str(exported))
    for top in (0, -1, 1001):
        with pytest.raises(UsageError, match="top must be between 1 and 1000"):
            classifier.results([], top=top)
    with pytest.raises(UsageError, match="batch_size"):
        classifier.results([], batch_size=0)


def test_names_of_published_networks_that_are_wrong_are_explained() -> None:
    """Would catch a name taken for a file, and an error of another package's."""
    with pytest.raises(BackboneError, match="choose one of 0, 1, 2"):
        load_classifier("efficientnet-lite:9")
    with pytest.raises(BackboneError, match="no classification network 'resnet51'; similar names: .*resnet50"):
        load_classifier("torchvision:resnet51")
    with pytest.raises(MissingWeights, match="none/such"):
        load_classifier("transformers:none/such")
    with pytest.raises(CheckpointError, match="resnet50: no such model; .* torchvision:NAME") as caught:
        load_classifier("resnet50")
    assert "blip" not in str(caught.value)


def test_torchvision_networks_bring_their_classes(monkeypatch: pytest.MonkeyPatch, images: list[Path]) -> None:
    """Would catch logits taken for features: the network must keep its last layer."""
    from captioner.backbones import torchvision as family

    torch.manual_seed(0)
    state = family.classifier("squeezenet1_1").state_dict()
    monkeypatch.setattr(family, "_download", lambda url: state)
    classifier = load_classifier("torchvision:squeezenet1_1")
    assert classifier.classes == imagenet_classes()
    assert sum(score.probability for score in classifier.classify(images[0], top=1000)) == pytest.approx(1, abs=1e-4)


def test_transformers_classifiers_bring_their_labels(tmp_path: Path, images: list[Path]) -> None:
    """Would catch labels in the order of texts ("10" before "2"), and an encoder without a layer of classes."""
    transformers = pytest.importorskip("transformers")
    classifier = load_classifier(save_vit(tmp_path / "vit", 12))
    assert classifier.classes == tuple(f"label {number}" for number in range(12))
    assert len(classifier.classify(images[0], top=12)) == 12 and len(classifier.classify(images[0])) == 5
    config = transformers.ViTConfig.from_pretrained(tmp_path / "vit")
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    with pytest.raises(BackboneError, match="lack classifier.*is it a classifier"):
        load_classifier(f"transformers:{tmp_path / 'vit'}")


@packaged
def test_examples_are_what_they_show() -> None:
    """Would catch classes numbered otherwise than the network's, and images prepared otherwise."""
    classifier = load_classifier("efficientnet-lite:0")
    found = {name: classifier.classify(EXAMPLES / name)[0].name for name in NUMBERS}
    assert found == {name: imagenet_classes()[number] for name, number in NUMBERS.items()}
    assert found["cat.jpg"] == "Egyptian cat" and found["dog.jpg"] == "German shepherd"


def test_imagenet_has_a_thousand_names() -> None:
    """Would catch a name that is missing, doubled or cut, which shifts all that follow."""
    names = imagenet_classes()
    assert len(names) == len(set(names)) == 1000 and (names[0], names[999]) == ("tench", "toilet tissue")
    assert all(name == name.strip() and name for name in names)


@pytest.mark.shared_data
def test_names_are_those_of_a_list_by_somebody_else(shared_data: Path) -> None:
    """Would catch names in another order; two of the other list's names occur twice, ours do not."""
    theirs = json.loads((shared_data / "imagenet" / "imagenet_class_index.json").read_text())
    differing = [
        number
        for number, name in enumerate(imagenet_classes())
        if theirs[str(number)][1].replace("_", " ").lower() != name.lower()
    ]
    assert differing == [134, 639]  # crane bird, maillot tank suit


def test_softmax_of_large_logits() -> None:
    """Would catch an overflow, and sums over the wrong axis."""
    found = softmax(np.array([[1000.0, 999.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, nn.functional.softmax(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 1))
