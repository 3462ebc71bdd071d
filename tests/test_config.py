"""Configurations: what ships loads, and what is wrong is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from captioner.config import Experiment, TrainConfig
from captioner.errors import ConfigError
from captioner.experiment import SHIPPED, load_experiment, parse_experiment
from captioner.models.lrcn import LRCNConfig
from captioner.plain_yaml import parse_yaml
from captioner.tasks.sentences.config import CaptionDataConfig, CaptioningConfig

SHIPPED_FILES = sorted(SHIPPED.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED_FILES, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path: Path) -> None:
    """Would catch a field renamed in config.py and not in a YAML file; a name is as good as a path."""
    assert load_experiment(path) == load_experiment(path.stem)


def test_there_are_shipped_configurations() -> None:
    assert SHIPPED_FILES


def test_a_configuration_survives_its_own_mapping() -> None:
    """Would catch a type that checkpoints lose: tuples, None, nested sections."""
    config = CaptioningConfig(data=CaptionDataConfig(features=("a.h5", "b.h5")), model=LRCNConfig(cell="gru"))
    experiment = Experiment("captioning", config, TrainConfig(lr=0.5), name="x")
    assert parse_experiment(experiment.to_mapping(), "test") == experiment


def test_settings_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("task: captioning\ntrain: {lr: 1e-3, epochs: 2}\n")
    experiment = load_experiment(path, ["train.lr=5e-4", "model.wiring=2f", "data.features=[x.h5, y.h5]", "name=7"])
    assert experiment.train.lr == 5e-4  # YAML reads 5e-4 as a string
    assert experiment.train.epochs == 2
    assert experiment.config.model.wiring == "2f"
    assert experiment.config.data.features == ("x.h5", "y.h5")
    assert experiment.name == "7"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.lrr=1", r"unknown key 'lrr'; did you mean lr\?"),
        ("trian.lr=1", r"unknown key 'trian'; did you mean train\?"),
        ("model.init=ones", "model.init: 'ones' is not one of orthogonal, uniform"),
        ("model.dropout=2", "model.dropout: 2.0 is outside 0 to 0.95"),
        ("train.epochs=many", "epochs: expected int, got 'many'"),
        ("train.epochs=true", "epochs: expected int, got 'true'"),
        ("train.lr=fast", "lr: expected a finite number, got 'fast'"),
        ("train.lr=inf", "lr: expected a finite number, got 'inf'"),
        ("train.loss_scale=nan", "loss_scale: expected a finite number, got 'nan'"),
        ("train.epochs=1.5", "epochs: expected int, got '1.5'"),
        ("train.seed=99999999999999999999", "seed: expected int, got '9999"),
        ("train.seed=" + "9" * 5000, "seed: expected int, got '9999"),
        ("train.epochs=[1, 2]", r"epochs: expected int, got \['1', '2'\]"),
        ("data.features=[", "not YAML"),
        ("model=4f", "model: expected a section with keys, got '4f'"),
        ("name.first=x", "name is a value, not a section"),
        ("epochs", "expected key=value"),
        ("train.metric=rouge", r"train.metric: 'rouge' is not one of cider, bleu4, dev_loss"),
        ("task=captoning", r"no task 'captoning'; did you mean captioning\?"),
        ("loss.objective=self_critical", r"name it in train\.init_from"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, setting: str, message: str) -> None:
    """Would catch a typo that silently trains with the default."""
    path = tmp_path / "run.yaml"
    path.write_text("task: captioning\nname: base\n")
    with pytest.raises(ConfigError, match=message):
        load_experiment(path, [setting])


@pytest.mark.parametrize("value", ["2024-01-15", "1.10", "007", "12:30", "no", "off", "1e3", "0x10", "1_000", "true"])
def test_texts_stay_as_they_were_written(tmp_path: Path, value: str) -> None:
    """Would catch a folder named otherwise than asked for, because YAML took its name for a date, number or boolean."""
    path = tmp_path / "run.yaml"
    path.write_text(f"task: captioning\noutput: {value}\ndata: {{features: [{value}]}}\n")
    experiment = load_experiment(path, [f"name={value}"])
    assert (experiment.output, experiment.name, experiment.config.data.features) == (value, value, (value,))


@pytest.mark.parametrize(("value", "wanted"), [("yes", True), ("on", True), ("True", True), ("off", False)])
def test_numbers_and_booleans_are_read_by_their_fields(tmp_path: Path, value: str, wanted: bool) -> None:
    """Would catch a boolean or number that stays a text, which is always true."""
    path = tmp_path / "run.yaml"
    path.write_text(f"task: captioning\nmodel: {{tied: {value}}}\ntrain: {{seed: 007, lr: .5}}\n")
    experiment = load_experiment(path)
    assert (experiment.config.model.tied, experiment.train.seed, experiment.train.lr) == (wanted, 7, 0.5)


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwxyz"))
CONTENTS = [
    ("[1, 2]", "is a mapping, not list"),
    ("a: [", "not YAML"),
    ("a: " + "[" * 20_000, "not YAML"),
    ("task: captioning\ntask: captioning", "not YAML: the key 'task' occurs twice"),
    ("task: captioning\ntrain: {lr: 1, lr: 2}", "not YAML: the key 'lr' occurs twice"),
    (BOMB, "no task"),
    ("task: captioning\nname: &a [*a]", "not YAML"),
    (BOMB.replace("z:", "output:") + "task: captioning", "unknown key 'a'"),
]


def test_an_error_does_not_write_out_what_a_small_file_expands_to() -> None:
    """Would catch a message of gigabytes about a value of a few aliases."""
    bomb = parse_yaml(BOMB, "x")["z"]
    for name in ("name", "train"):
        with pytest.raises(ConfigError, match="expected") as caught:
            parse_experiment({"task": "captioning", name: bomb}, "x")
        assert len(str(caught.value)) < 1000
    with pytest.raises(ConfigError, match="outside"):
        TrainConfig(lr=float("inf"))


@pytest.mark.parametrize(("content", "message"), CONTENTS, ids=range(len(CONTENTS)))
def test_files_that_are_no_configuration(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_experiment(path)


def test_a_missing_file_lists_what_ships() -> None:
    with pytest.raises(ConfigError, match="no such configuration file; shipped ones: "):
        load_experiment("nowhere.yaml")


def test_a_configuration_without_a_task_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: base\n")
    with pytest.raises(ConfigError, match="no task; add one of captioning, language_model, clip_captioning"):
        load_experiment(path)
