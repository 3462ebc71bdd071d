"""The task ``classification``: crops, batches, and whole runs on tiny images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.checkpoint import load_checkpoint
from captioner.data.labeled import LabeledImages
from captioner.data.records import ClassNames
from captioner.errors import ConfigError
from captioner.experiment import load_experiment
from captioner.tasks.images.config import ImageDataConfig
from captioner.tasks.images.data import ImageData, Variation, crop, load_images, middle
from captioner.tasks.images.learner import ImageLearner, predict_logits
from captioner.train.trainer import train
from tests.labeled import draw_images, write_cifar10, write_mnist

SETTINGS = ("train.device=cpu", "train.epochs=3", "train.batch_size=16", "data.val=20")


def labeled(count: int, side: int = 8, channels: int = 3) -> LabeledImages:
    pixels, labels = draw_images(count, side, channels, 4)
    return LabeledImages(pixels, labels, tuple(map(str, range(count))))


def image_data(seed: int = 0, **settings: object) -> ImageData:
    config = ImageDataConfig(side=8, **{"crop": 6, "pad": 2, "flip": True, **settings})  # type: ignore[arg-type]
    return ImageData(config, ClassNames(tuple("abcd")), labeled(50), labeled(12), 16, seed)


def test_crops_are_numpy_s() -> None:
    """Would catch crops that are shifted, mirrored up and down, or padded by repeating the border."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    rows, top, left = np.array([3, 0, 3, 4]), np.array([0, 2, 6, 3]), np.array([6, 0, 1, 3])
    flip = np.array([False, True, False, True])
    found = crop(torch.from_numpy(pixels), Variation(*map(torch.from_numpy, (rows, top, left, flip))), 6, 2)
    for image, row, y, x, mirrored in zip(found.numpy(), rows, top, left, flip, strict=True):
        padded = np.pad(pixels[row], ((2, 2), (2, 2), (0, 0)), mode="reflect")
        wanted = padded[y : y + 6, x : x + 6]
        assert (image == (wanted[:, ::-1] if mirrored else wanted)).all()


def test_an_epoch_has_every_image_once_and_shares_add_up() -> None:
    """Would catch images left out at the end of an epoch, and processes that see different crops than one does."""
    data = image_data()
    whole = list(data.batches(3))
    assert len(whole) == len(data) == 4 and sum(map(len, whole)) == 50
    assert sorted(data.vary(3).rows.tolist()) == list(range(50))
    shares = [list(data.batches(3, rank=rank, size=2)) for rank in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        together = torch.empty_like(batch.images)
        together[0::2], together[1::2] = first.images, second.images
        assert (together == batch.images).all()
    resumed = list(data.batches(3, skip=2))
    assert len(resumed) == 2 and (resumed[0].images == whole[2].images).all()


def test_epochs_and_seeds_differ_and_nothing_else_does() -> None:
    """Would catch the same crops in every epoch, and varied images where no variation is asked for."""
    first = next(image_data().batches(0)).images
    assert (next(image_data().batches(0)).images == first).all()
    assert (next(image_data().batches(1)).images != first).any()
    assert (next(image_data(seed=1).batches(0)).images != first).any()
    plain = image_data(crop=8, pad=0, flip=False)
    assert (next(plain.batches(0)).images == plain.pixels[plain.vary(0).rows[:16]]).all()


def test_statistics_are_those_of_the_training_pixels() -> None:
    """Would catch deviations from rounded means, and gray images with the statistics of one color of three."""
    for channels in (1, 3):
        images = labeled(50, channels=channels)
        config = ImageDataConfig(side=8, crop=6, channels=channels)
        (spec,) = ImageData(config, ClassNames(tuple("abcd")), images, images, 16, 0).inputs
        values = images.pixels.reshape(-1, channels) / 255
        assert spec.mean[:channels] == pytest.approx(values.mean(0)) and len(spec.mean) == 3
        assert spec.std[:channels] == pytest.approx(values.std(0))
        assert (spec.size, spec.shorter, spec.dimension) == (6, 8, 36 * channels)


@pytest.mark.parametrize("name", ["cifar10-cnn", "cifar10-cnn-lstm", "cifar10-gru", "cifar10-small-cnn"])
def test_a_run_on_cifar10_files(tmp_path: Path, name: str) -> None:
    """Would catch a configuration that does not train, and a checkpoint that predicts otherwise than the run did."""
    write_cifar10(tmp_path / "data", count=40)
    small = ["model.hidden_dim=16", "model.fully_connected=[16]", "model.widths=[8, 8]"]
    settings = [*SETTINGS, *small, f"data.root={tmp_path / 'data'}", f"output={tmp_path / 'run'}"]
    result = train(load_experiment(name, settings), progress=False)
    checkpoint = load_checkpoint(result.checkpoint)
    assert result.metric == "accuracy" and checkpoint.outputs.to_list()[0] == "airplane"
    assert checkpoint.extra["dev"]["accuracy"] == result.score


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cifar10-cnn-lrn", "cifar10-cnn-lstm", "cifar10-lstm", "cifar10-small-cnn"])
def test_a_run_on_a_gpu_varies_images_as_one_on_a_processor(tmp_path: Path, name: str) -> None:
    """Would catch tensors left on the other device, and crops that depend on where they are made."""
    write_cifar10(tmp_path / "data", count=40)
    places = [f"data.root={tmp_path / 'data'}", f"output={tmp_path / 'run'}"]
    experiment = load_experiment(name, [*SETTINGS, *places, "train.device=cuda"])
    result = train(experiment, progress=False)
    assert load_checkpoint(result.checkpoint).extra["dev"]["accuracy"] == result.score
    here, there = load_images(experiment), load_images(experiment)
    there.to(torch.device("cuda"))
    for one, other in zip(here.batches(1), there.batches(1), strict=True):
        assert (one.images == other.images.cpu()).all() and (one.labels == other.labels.cpu()).all()


def test_lenet_learns_and_its_checkpoint_scores_what_the_log_says(tmp_path: Path) -> None:
    """Would catch labels that do not belong to their images, and normalization that the checkpoint forgets."""
    write_mnist(tmp_path / "data", train=220)
    settings = [*SETTINGS, f"data.root={tmp_path / 'data'}", f"output={tmp_path / 'run'}", "train.epochs=6"]
    experiment = load_experiment("mnist-lenet", settings)
    result = train(experiment, progress=False)
    assert result.score > 90
    checkpoint = load_checkpoint(result.checkpoint)
    data = experiment.config.data
    learner = ImageLearner(checkpoint.model, checkpoint.inputs[0], data.channels)
    pixels, labels = draw_images(20, 28, 1, 10, seed=5)
    logits = predict_logits(learner, torch.from_numpy(pixels), data.crop)
    assert (logits.argmax(1).numpy() == labels).mean() > 0.9


def test_the_middle_is_the_middle() -> None:
    """Would catch an evaluation that looks at a corner."""
    pixels = torch.arange(64).reshape(1, 8, 8, 1)
    assert middle(pixels, 4)[0, 0, 0, 0] == 18 and middle(pixels, 4).shape == (1, 4, 4, 1)


def test_settings_that_the_task_has_not_are_refused() -> None:
    """Would catch settings that are ignored silently."""
    with pytest.raises(ConfigError, match=r"train.init_from"):
        load_experiment("mnist-lenet", ["train.init_from=a.safetensors"])
    with pytest.raises(ConfigError, match=r"data.channels: 2"):
        load_experiment("mnist-lenet", ["data.channels=2"])
    with pytest.raises(ConfigError, match=r"data.crop: 40"):
        load_experiment("mnist-lenet", ["data.crop=40"])
