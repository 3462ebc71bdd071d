"""Every configuration that ships must load, and say about itself what is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.data import READERS
from captioner.experiment import SHIPPED, load_experiment
from captioner.models.lrcn import ImageCaptioner

NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_shipped_configuration_loads_and_builds(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.output == f"runs/{name}"
    assert experiment.data.format in READERS
    assert experiment.data.features or experiment.data.text or experiment.train.finetune
    assert (SHIPPED / f"{name}.yaml").read_text().startswith("# "), "the first line says what it is for"
    model = ImageCaptioner(experiment.model, 50, 7, [f"node=label {number}" for number in range(7)])
    assert sum(p.numel() for p in model.parameters()) > 0


def test_the_papers_solver() -> None:
    """Donahue et al. as released: sizes, initialization, rates; only the wiring differs between the four."""
    assert {name for name in NAMES if name.startswith("paper-")} == {f"paper-{w}" for w in ("1u", "2u", "2f", "4f")}
    for wiring in ("1u", "2u", "2f", "4f"):
        experiment = load_experiment(f"paper-{wiring}")
        model, train = experiment.model, experiment.train
        assert (model.wiring, model.embedding, model.hidden, model.image) == (wiring, 1000, 1000, 0)
        assert (model.init, model.dropout, model.normalize) == ("uniform", 0, "none")
        assert not model.residual and not model.tied
        assert (train.optimizer, train.lr, train.schedule, train.halve_every) == ("sgd", 0.01, "halve", 20000)
        assert (train.clip, train.loss_scale, train.batch_size) == (10, 20, 100)


def test_settings_override(tmp_path: Path) -> None:
    experiment = load_experiment(NAMES[0], ["train.lr=1e-4", f"output={tmp_path}", "data.features=[a.h5, b.h5]"])
    assert (experiment.train.lr, experiment.output) == (1e-4, str(tmp_path))
    assert experiment.data.features == ("a.h5", "b.h5")
