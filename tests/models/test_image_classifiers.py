"""Networks that classify small images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captioner.errors import ConfigError
from captioner.experiment import load_experiment
from captioner.models import IMAGE_MODELS
from captioner.models.cnn_lstm import CNN, CNNLSTM, LocalResponseNorm, RowReader, Rows, arrange
from captioner.models.image_config import ImageModelConfig
from captioner.models.lenet import LeNet
from captioner.models.small_cnn import SmallCNN
from captioner.registry import resolve


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_network_gives_logits_and_learns_in_every_layer(name: str) -> None:
    """Would catch a network whose layer is not connected, and one for RGB images of one size only."""
    for channels, side in ((3, 24), (1, 28)):
        config = ImageModelConfig(architecture=name, hidden_dim=16, local_response_norm=True, widths=(8, 16))
        network = resolve(IMAGE_MODELS, name, "architecture")(config, channels, side, 7)
        logits = network(torch.randn(4, channels, side, side))
        assert logits.shape == (4, 7)
        nn.functional.cross_entropy(logits, torch.arange(4)).backward()
        for parameter_name, parameter in network.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


def test_local_response_norm_is_torch_s() -> None:
    """Would catch a window that is off by one, a wrong exponent, and a missing correction at the first and last map."""
    maps = 5 * torch.rand(3, 64, 4, 6, generator=torch.Generator().manual_seed(0))
    wanted = nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)(maps)
    torch.testing.assert_close(LocalResponseNorm(64)(maps), wanted)


def test_local_response_norm_is_not_rounded_away() -> None:
    """Would catch a sum in bfloat16, which cannot tell 1.003 from 1: the row of the table would be the one without."""
    maps = 2 * torch.rand(3, 64, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = LocalResponseNorm(64)(maps)
    torch.testing.assert_close(found, LocalResponseNorm(64)(maps))
    assert (found < maps).all()


def test_mosaic_puts_maps_side_by_side_and_reshape_does_not() -> None:
    """Would catch rows of the mosaic that mix maps of several tiles, and two arrangements that are one."""
    maps = torch.arange(4 * 9.0).reshape(1, 4, 3, 3)  # 2 by 2 tiles of 3 by 3
    mosaic = arrange(maps, 2, "mosaic")[0]
    assert mosaic.shape == (6, 6)
    for tile in range(4):
        row, column = divmod(tile, 2)
        assert (mosaic[3 * row : 3 * row + 3, 3 * column : 3 * column + 3] == maps[0, tile]).all()
    assert arrange(maps, 2, "reshape")[0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_shuffled_rows_are_the_same_rows_in_one_fixed_order() -> None:
    """Would catch rows that are lost, an order that changes between runs, and shuffling that does nothing."""
    orders = [
        RowReader(ImageModelConfig(hidden_dim=4, shuffle_rows=shuffled), 48, 5, 2).order for shuffled in (0, 1, 1)
    ]
    assert orders[0].tolist() == list(range(48)) != orders[1].tolist()
    assert sorted(orders[1].tolist()) == list(range(48)) and orders[1].tolist() == orders[2].tolist()


def test_a_row_of_pixels_is_a_step() -> None:
    """Would catch columns read as rows: changing the last row must not change what is read before it."""
    network = Rows(ImageModelConfig(architecture="rows", hidden_dim=8), 3, 6, 2)
    seen: list[torch.Tensor] = []
    network.reader.recurrent.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    images = torch.rand(1, 3, 6, 6)
    changed = images.clone()
    changed[:, :, -1] = 0
    network(images), network(changed)
    before, after = seen
    assert before.shape == (6, 1, 18)
    assert (before[:-1] == after[:-1]).all() and (before[-1] != after[-1]).any()


def test_rows_of_the_table_have_equal_budgets() -> None:
    """Would catch a comparison of networks of different sizes: all but the modern one within 0.5 %."""
    sizes = {}
    for name in ("cnn", "cnn-lrn", "lstm", "gru", "cnn-lstm"):
        experiment = load_experiment(f"cifar10-{name}")
        network = resolve(IMAGE_MODELS, experiment.config.model.architecture, "")(experiment.config.model, 3, 24, 10)
        sizes[name] = sum(parameter.numel() for parameter in network.parameters())
        reference = load_experiment("cifar10-cnn")
        assert (experiment.train, experiment.config.data) == (reference.train, reference.config.data)
    assert sizes["cnn"] == sizes["cnn-lrn"]
    assert all(abs(size / sizes["cnn"] - 1) < 0.005 for size in sizes.values()), sizes


def test_sizes_of_the_published_networks() -> None:
    """Would catch a layer of another size: Caffe's LeNet has 431,080 parameters, TensorFlow's tutorial 2,304 inputs."""
    assert sum(p.numel() for p in LeNet(ImageModelConfig(), 1, 28, 10).parameters()) == 431_080
    cnn = CNN(ImageModelConfig(), 3, 24, 10)
    assert [layer.in_features for layer in cnn.classifier if isinstance(layer, nn.Linear)] == [2304, 384, 192]
    assert CNNLSTM(ImageModelConfig(), 3, 24, 10).reader.recurrent.input_size == 48


def test_whitened_patches_do_not_correlate() -> None:
    """Would catch eigenvectors in columns instead of rows, and variances that are not divided by."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(200, 3, 8, 8, generator=generator).cumsum(2).cumsum(3) * 0.3
    network = SmallCNN(ImageModelConfig(widths=(4,)), 3, 8, 2)
    network.whiten(images)
    with torch.no_grad():
        maps = network.whitening(images).permute(1, 0, 2, 3).flatten(1)  # (24, N')
    covariance = torch.cov(maps[:12])
    assert (covariance.diag() - 1).abs().max() < 0.1
    assert (covariance - covariance.diag().diag()).abs().max() < 0.01
    torch.testing.assert_close(maps[12:], -maps[:12])
    assert not network.whitening.weight.requires_grad


def test_sizes_that_do_not_fit_are_refused() -> None:
    """Would catch an error of torch's in place of one that names the setting."""
    with pytest.raises(ConfigError, match=r"data.crop: 30 .*multiple of 4"):
        CNN(ImageModelConfig(), 3, 30, 10)
    with pytest.raises(ConfigError, match=r"model.maps: 60 maps do not tile a square"):
        CNNLSTM(ImageModelConfig(maps=60), 3, 24, 10)
    with pytest.raises(ConfigError, match=r"data.crop: 12 .*LeNet"):
        LeNet(ImageModelConfig(), 1, 12, 10)
    with pytest.raises(ConfigError, match=r"data.crop: 4 .*model.widths"):
        SmallCNN(ImageModelConfig(), 3, 4, 10)
    with pytest.raises(ConfigError, match=r"model.architecture"):
        ImageModelConfig(architecture="resnet")
    with pytest.raises(ConfigError, match=r"model.widths"):
        ImageModelConfig(widths=())
