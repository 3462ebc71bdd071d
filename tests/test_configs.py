"""Every configuration that ships must load, and say about itself what is true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captioner.backbones.spec import BackboneSpec
from captioner.data import READERS
from captioner.data.activity import VIDEO_READERS
from captioner.data.labeled import READERS as LABELED_READERS
from captioner.data.records import ClassNames
from captioner.experiment import SHIPPED, load_experiment
from captioner.features.spec import FeatureSpec
from captioner.features.video_spec import VideoSpec
from captioner.tasks.base import find_task
from captioner.text.vocabulary import SPECIALS, START, Vocabulary

NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
IMAGES = [name for name in NAMES if load_experiment(name).task == "classification"]
VIDEOS = [name for name in NAMES if load_experiment(name).task == "activity"]
SENTENCES = [name for name in NAMES if name not in IMAGES + VIDEOS]


@pytest.mark.parametrize("name", IMAGES)
def test_shipped_image_classifier_loads_and_builds(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.output == f"runs/{name}"
    data = experiment.config.data
    assert data.format in LABELED_READERS
    assert (SHIPPED / f"{name}.yaml").read_text().startswith("# "), "the first line says what it is for"
    model = find_task(experiment.task).build(
        experiment.config, [BackboneSpec(key="pixels", size=data.crop)], ClassNames(tuple("abc"))
    )
    with torch.no_grad():
        logits = model(torch.zeros(2, data.channels, data.crop, data.crop))
    assert logits.shape == (2, 3) and logits.isfinite().all()


@pytest.mark.parametrize("name", VIDEOS)
def test_shipped_recognizer_loads_and_builds(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.output == f"runs/{name}"
    data, side = experiment.config.data, 64
    assert data.format in VIDEO_READERS and data.features
    assert (SHIPPED / f"{name}.yaml").read_text().startswith("# "), "the first line says what it is for"
    spec = VideoSpec(key="pixels:64", dimension=3 * side**2, frames=20, size=side)
    model = find_task(experiment.task).build(experiment.config, [spec], ClassNames(tuple("abc")))
    assert model.eval().predict(torch.zeros(2, 20, spec.dimension)).shape == (2, 3)


@pytest.mark.parametrize("name", SENTENCES)
def test_shipped_configuration_loads_and_builds(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.output == f"runs/{name}"
    config = experiment.config
    if experiment.task == "language_model":
        assert config.data.text
    else:
        assert config.data.format in READERS
        assert config.data.features or config.finetune.backbone
    assert (SHIPPED / f"{name}.yaml").read_text().startswith("# "), "the first line says what it is for"
    words = Vocabulary((*SPECIALS, *"abc"))
    spec = FeatureSpec("labels", 7, names=tuple(f"node=label {number}" for number in range(7)))
    model = find_task(experiment.task).build(config, [spec], words)
    with torch.no_grad():
        logits = model(torch.eye(7)[:2], torch.tensor([[START, 4], [START, 5]]))
    assert logits.shape == (2, 2, len(words)) and logits.isfinite().all()


def test_the_papers_solver() -> None:
    """Donahue et al. as released: sizes, initialization, rates; only the wiring differs between the four."""
    assert {name for name in NAMES if name.startswith("paper-")} == {f"paper-{w}" for w in ("1u", "2u", "2f", "4f")}
    for wiring in ("1u", "2u", "2f", "4f"):
        experiment = load_experiment(f"paper-{wiring}")
        model, train = experiment.config.model, experiment.train
        assert (model.wiring, model.embedding_dim, model.hidden_dim, model.image_dim) == (wiring, 1000, 1000, 0)
        assert (model.init, model.dropout, model.normalize) == ("uniform", 0, "none")
        assert not model.residual and not model.tied
        assert (train.optimizer, train.lr, train.schedule, train.halve_every) == ("sgd", 0.01, "halve", 20000)
        assert (train.clip, train.loss_scale, train.batch_size) == (10, 20, 100)


def test_settings_override(tmp_path: Path) -> None:
    experiment = load_experiment(SENTENCES[0], ["train.lr=1e-4", f"output={tmp_path}", "data.features=[a.h5, b.h5]"])
    assert (experiment.train.lr, experiment.output) == (1e-4, str(tmp_path))
    assert experiment.config.data.features == ("a.h5", "b.h5")
