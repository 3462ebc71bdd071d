"""Checkpoints: what goes in comes out, and what is broken or does not fit is named."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from captioner.backbones import load_backbone
from captioner.backbones.compact import CompactCNN
from captioner.backbones.spec import BackboneSpec
from captioner.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from captioner.decoding.config import DecodingConfig
from captioner.errors import CheckpointError
from captioner.files import sha256
from captioner.models.lrcn import LRCN, LRCNConfig
from captioner.skip_init import skip_init
from captioner.tasks.sentences.config import CaptioningConfig
from captioner.text.vocabulary import SPECIALS, Vocabulary

VOCABULARY = Vocabulary((*SPECIALS, "a", "dog", "naïve", "café"))
BACKBONES = [BackboneSpec("one", size=32, dimension=4), BackboneSpec("two", size=64, dimension=2, mean=(0.1, 0.2, 0.3))]
STORED = Path(__file__).parent / "fixtures" / "checkpoint-v2.safetensors"
STATES = [{"conv.weight": torch.randn(3, 2), "norm.running_var": torch.rand(3), "seen": torch.tensor(7)}, None]


def build(**options: Any) -> LRCN:
    """A model none of whose numbers is what it would be after construction."""
    torch.manual_seed(0)
    model = LRCN(LRCNConfig(embedding_dim=6, hidden_dim=5, image_dim=3, **options), len(VOCABULARY), 6)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn_like(tensor))
    return model


def save(path: Path, model: LRCN | None = None, **options: Any) -> Path:
    model = model or build()
    config = CaptioningConfig(model=model.config, decoding=DecodingConfig(beam_size=4))
    save_checkpoint(path, "captioning", model, config, BACKBONES, VOCABULARY, **options)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("options", [{}, {"tied": True, "cell": "gru", "wiring": "2u"}, {"image_dropout": 0.5}])
def test_everything_comes_back(path: Path, options: dict[str, Any]) -> None:
    """Would catch: a tensor or a setting that is left at its initial value."""
    model = build(**options)
    loaded = load_checkpoint(save(path, model, extra={"cider": 0.5}, backbone_states=STATES))
    assert loaded.model.config == model.config
    assert not loaded.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    if model.config.tied:
        assert loaded.model.lm_head.weight is loaded.model.embedding.weight
    assert (loaded.outputs, list(loaded.inputs)) == (VOCABULARY, BACKBONES)
    assert (loaded.config.decoding, loaded.extra) == (DecodingConfig(beam_size=4), {"cider": 0.5})
    assert "torch" in loaded.provenance
    first, second = loaded.backbone_states
    assert second is None and first is not None
    assert first.keys() == STATES[0].keys()
    assert all(torch.equal(first[name], tensor) for name, tensor in STATES[0].items())


def test_a_stored_file_of_this_version_is_read() -> None:
    """Would catch a change of the format without a new version number. Written by tests/fixtures/make_formats.py."""
    loaded = load_checkpoint(STORED)
    assert loaded.task == "captioning"
    assert loaded.config.model == LRCNConfig(embedding_dim=4, hidden_dim=3, image_dim=2, cell="gru")
    assert loaded.outputs == Vocabulary((*SPECIALS, "a", "dog", "café"))
    assert loaded.inputs == (BackboneSpec("one", size=32, dimension=3),)
    assert loaded.extra == {"epoch": 7} and loaded.provenance["torch"]
    assert loaded.backbone_states[0] is not None
    assert loaded.backbone_states[0]["conv.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    for name, tensor in loaded.model.named_parameters():
        assert torch.equal(tensor, torch.linspace(-1, 1, tensor.numel()).reshape(tensor.shape)), name


def test_shipping_in_half_precision(path: Path) -> None:
    """Matrices lose their last digits, vectors none; all of it is float32 again in memory."""
    model = build()
    loaded = load_checkpoint(save(path, model, dtype=torch.float16, backbone_states=STATES))
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if tensor.ndim > 1 else tensor
        assert torch.equal(loaded.model.state_dict()[name], expected), name
    state = loaded.backbone_states[0]
    assert state is not None
    assert torch.equal(state["conv.weight"], STATES[0]["conv.weight"].half().float())
    assert torch.equal(state["norm.running_var"], STATES[0]["norm.running_var"])
    assert state["seen"].dtype == torch.int64


def test_shipping_in_eight_bits(path: Path) -> None:
    """Would catch scales of columns or of the whole matrix, a row of zeros that becomes NaN, and rounded vectors."""
    model = build()
    with torch.no_grad():
        model.lm_head.weight[1] *= 1000
        model.lm_head.weight[2] = 0
    loaded = load_checkpoint(save(path, model, dtype=torch.int8, backbone_states=STATES)).model.state_dict()
    for name, tensor in model.state_dict().items():
        half_a_step = tensor.abs().amax(-1, keepdim=True) / 254 if tensor.ndim > 1 else torch.zeros(1)
        assert ((loaded[name] - tensor).abs() <= half_a_step * 1.001).all(), name
    assert path.stat().st_size < save(path.with_name("whole"), model, backbone_states=STATES).stat().st_size


def test_kernels_in_eight_bits(path: Path) -> None:
    """Would catch one scale for channels of unlike size, and depthwise kernels as coarse as their largest weight."""
    wide, deep = torch.randn(4, 32, 1, 1) * torch.tensor([1, 10, 100, 0])[:, None, None, None], torch.randn(8, 1, 5, 5)
    states = [{"wide": wide, "deep": deep}, None]
    found = load_checkpoint(save(path, dtype=torch.int8, backbone_states=states)).backbone_states[0]
    assert found is not None
    assert ((found["wide"] - wide).abs() <= wide.abs().amax(1, keepdim=True) / 253).all()
    assert torch.equal(found["deep"], deep.half().float())
    with safe_open(path, "np") as stream:
        assert stream.get_tensor("backbone.0.wide").itemsize == 1


def test_equal_checkpoints_are_equal_files(path: Path) -> None:
    digests = {load_checkpoint(save(path)).digest for _ in range(5)}
    assert digests == {sha256(path)}


def test_a_checkpoint_is_replaced_whole_or_not_at_all(path: Path) -> None:
    before = save(path).read_bytes()
    huge = build()
    with torch.no_grad():
        huge.lm_head.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"lm_head.weight has values too large for torch.float16"):
        save(path, huge, dtype=torch.float16)
    with pytest.raises(TypeError):
        save(path, extra={"no": object()})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the entry in the header of a checkpoint and leave its tensors alone."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    contents = json.loads(header["__metadata__"][FORMAT])
    change(contents)
    header["__metadata__"][FORMAT] = json.dumps(contents)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + size :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=1), "version 1; this captioner reads version 2"),
        (lambda c: c["outputs"]["names"].append("cat"), r"is \(8, 6\), but configuration.*require \(9, 6\)"),
        (lambda c: c["outputs"].update(kind="words"), "no kind of outputs 'words'"),
        (
            lambda c: c["inputs"].pop(),
            r"model\.feature_mean is \(6,\), but .* require \(4,\)",
        ),
        (lambda c: c["inputs"][0].update(kind="eye"), "no kind of feature record 'eye'"),
        (lambda c: c["config"]["model"].update(wiring="2f"), r"tensor model.stack.layers.2.\w+ \(and 7 more\) has no"),
        (lambda c: c["config"]["model"].update(tied=True), r"model.pre_output.bias \(and 1 more\) is missing"),
        (lambda c: c["config"]["model"].update(cell="gru"), r"is \(20,\), but configuration.* require \(15,\)"),
        (lambda c: c["config"]["model"].update(depth=3), "unknown key 'depth'"),
        (lambda c: c["config"]["model"].update(wiring="9x"), "'9x' is not one of"),
        (lambda c: c.pop("config"), "header is invalid: KeyError"),
        (lambda c: c.update(task="painting"), "no task 'painting'"),
        (
            lambda c: c["inputs"][0].update(std=float("inf")),
            "header is invalid: BackboneError: std: .*not",
        ),
        (lambda c: c["outputs"]["names"].append(7), "the words of a vocabulary must be texts"),
        (lambda c: c["outputs"]["names"].append("\ud800"), "its header is damaged"),
        (lambda c: c["inputs"][0].update(dimension=10**12), "header is invalid: .*dimension"),
    ],
)
def test_parts_that_do_not_fit_are_named(path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    save(path)
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "NaN": (lambda t: t["model.lm_head.weight"].fill_(torch.nan), "model.lm_head.weight holds values that are not fin"),
    "infinite scale": (lambda t: t["model.embedding.weight.scale"].fill_(torch.inf), "embedding.weight holds values"),
    "no scale": (lambda t: t.pop("model.embedding.weight.scale"), "embedding.weight is int8 without the scales"),
    "one scale": (
        lambda t: t.update({"model.embedding.weight.scale": torch.ones(1)}),
        "embedding.weight is int8 without the scales",
    ),
    "bfloat16": (lambda t: t.update(x=torch.ones(1).bfloat16()), "holds a tensor of a type that is not read here"),
    "float8": (lambda t: t.update(x=torch.ones(1).to(torch.float8_e5m2)), "holds a tensor of a type that is not read"),
    "int64": (
        lambda t: t.update({"model.feature_mean": t["model.feature_mean"].long()}),
        r"model.feature_mean is torch.int64, not torch.float32; restore",
    ),
}


@pytest.mark.parametrize("what", TENSORS)
def test_damaged_tensors_are_refused(path: Path, what: str) -> None:
    """Would catch weights of another type or without scales, which change captions, and NaN, which empties them."""
    change, message = TENSORS[what]
    save(path, dtype=torch.int8)
    with safe_open(path, "pt") as stream:
        header, tensors = stream.metadata(), {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    tensors = {name: one.float() if name[6:] == "lm_head.weight" else one for name, one in tensors.items()}
    tensors.pop("model.lm_head.weight.scale")
    change(tensors)
    contents = json.loads(header[FORMAT])
    del contents["checksum"]  # would be named first
    save_file(tensors, path, {FORMAT: json.dumps(contents)})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_changed_byte_is_noticed(path: Path) -> None:
    """Would catch weights that changed a little on a disk or on their way, and other captions with them."""
    save(path, dtype=torch.int8)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # of the last tensor
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"do not match their checksum; restore the file"):
        load_checkpoint(path)


def test_weights_that_are_not_finite_are_not_written(path: Path) -> None:
    """Would catch a training run that diverged and replaced its best checkpoint."""
    model = build()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=r"not written: model.lm_head.weight holds values .*; lower train.lr"):
        save(path, model)
    assert not path.exists()


HEADERS = {
    "deep": "[" * 20_000,
    "digits": '{"version": ' + "9" * 5000 + "}",
    "version": '{"version": ' + json.dumps(["x" * 100] * 1000) + "}",
    "list": "[1]",
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_hostile_header_is_one_short_error(path: Path, what: str) -> None:
    """Would catch a traceback from JSON of any depth, number or type."""
    save_file({"model.x": torch.ones(1)}, path, {FORMAT: HEADERS[what]})
    with pytest.raises(CheckpointError, match=r"its header is damaged|a checkpoint of version") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 400


def test_misfits_are_refused_before_they_are_written(path: Path) -> None:
    model = build()
    config = CaptioningConfig(model=model.config)
    with pytest.raises(CheckpointError, match=r"embedding.weight is \(8, 6\).* require \(5, 6\)"):
        save_checkpoint(path, "captioning", model, config, BACKBONES, Vocabulary((*SPECIALS, "a")))
    with pytest.raises(CheckpointError, match=r"require \(3, 4\)|require \(4,\)"):
        save_checkpoint(path, "captioning", model, config, BACKBONES[:1], VOCABULARY)
    assert not path.exists()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def other_safetensors() -> bytes:
    from safetensors.torch import save as to_bytes

    return to_bytes({"weight": torch.ones(2)}, {"format": "pt"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, cut off or not a safetensors file"),
        (b"not a checkpoint at all", "damaged, cut off or not a safetensors file"),
        (pickle.dumps(Bomb()), "damaged, cut off or not a safetensors file"),
        (other_safetensors(), "not a checkpoint of captioner"),
    ],
    ids=["empty", "text", "pickle", "another"],
)
def test_other_files_are_refused_and_never_executed(
    path: Path, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_cut_off_files_are_refused(path: Path, kept: float) -> None:
    data = save(path).read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CheckpointError, match="damaged, cut off"):
        load_checkpoint(path)


def test_missing_files_are_named(path: Path) -> None:
    with pytest.raises(CheckpointError, match="model.safetensors: no such checkpoint file"):
        load_checkpoint(path)


def test_empty_models_draw_nothing() -> None:
    """Would catch a torch whose layers draw by another function: loading would slow down, and seeds would shift."""
    state = CompactCNN().state_dict()
    before: Tensor = torch.get_rng_state()
    with skip_init():
        LRCN(LRCNConfig(), 100, 10)
    network = load_backbone("compact", state=state).network
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
