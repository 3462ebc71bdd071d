"""Exported models: the same captions from ONNX Runtime as from torch, in a file that is still a checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from captioner import load
from captioner.backbones import load_backbone
from captioner.checkpoint import load_checkpoint, save_checkpoint
from captioner.errors import CheckpointError, UsageError
from captioner.export import export_onnx
from captioner.model_file import FORMAT, read_graph, read_header, read_weights
from captioner.models.lrcn import LRCN, LRCNConfig
from captioner.predictors.onnx_runtime import OnnxRuntime
from captioner.predictors.torch_runtime import TorchRuntime
from tests import tiny

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_onnx(tiny.save_tiny(folder / "tiny.safetensors", backbone_seeds=(0, 5)), folder / "onnx.safetensors")
    return folder / "onnx.safetensors"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tiny.save_images(tmp_path_factory.mktemp("images"), 5)


@pytest.mark.parametrize("options", [{}, {"method": "greedy"}, {"beam_size": 5, "num_return_sequences": 2}])
def test_captions_and_log_probabilities_are_torchs(exported: Path, images: list[Path], options: dict[str, Any]) -> None:
    """Would catch weights of the wrong name, a state in the wrong order, and words that must never come."""
    light, full = load(exported), load(exported, runtime="torch")
    assert isinstance(light.runtime, OnnxRuntime) and isinstance(full.runtime, TorchRuntime)
    for one, other in zip(light.results(images, **options), full.results(images, **options), strict=True):
        assert [caption.text for caption in one.captions] == [caption.text for caption in other.captions]
        ours, theirs = ([caption.log_prob for caption in found.captions] for found in (one, other))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_an_exported_file_is_a_checkpoint_without_second_weights(exported: Path) -> None:
    """Would catch graphs that hold the weights again, which would double the file."""
    source = exported.parent / "tiny.safetensors"
    added = exported.stat().st_size - source.stat().st_size
    assert 0 < added < 200_000
    one, other = load_checkpoint(exported), load_checkpoint(source)
    assert all(torch.equal(value, other.model.state_dict()[name]) for name, value in one.model.state_dict().items())


def test_onnx_runtime_merges_batch_norms_into_convolutions(exported: Path, tmp_path: Path) -> None:
    """Would catch what keeps ONNX Runtime from merging, such as biases and bounds that the graph computes first."""
    import onnx
    import onnxruntime

    header = read_header(exported)
    graph = read_graph(exported, read_weights(header), "backbone.0")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "merged.onnx")
    options.log_severity_level = 4  # the merged graph fits this processor alone, it warns
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), values)
    onnxruntime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "merged.onnx").graph.node}
    assert "Conv" in kinds
    assert not kinds & {"BatchNormalization", "Clip", "Cast", "Expand"}


def test_a_network_that_comes_from_elsewhere_is_written_too(tmp_path: Path) -> None:
    """Would catch a file whose checksum is of the weights before the network's were added."""
    source = tiny.save_tiny(tmp_path / "tiny.safetensors")
    checkpoint = load_checkpoint(source)
    save_checkpoint(
        tmp_path / "bare.safetensors",
        "captioning",
        checkpoint.model,
        checkpoint.config,
        [load_backbone("default").spec],  # also 1280 numbers
        checkpoint.outputs,
    )
    export_onnx(tmp_path / "bare.safetensors", tmp_path / "onnx.safetensors")
    assert load_checkpoint(tmp_path / "onnx.safetensors").backbone_states[0] is not None


def test_stores_of_the_same_network_fit_either_runtime(exported: Path) -> None:
    light, full = load(exported), load(exported, runtime="torch")
    assert [light.runtime.weights_digest(index) for index in (0, 1)] == [
        full.runtime.weights_digest(index) for index in (0, 1)
    ]


def test_captions_need_no_torch(exported: Path, images: list[Path]) -> None:
    """Would catch an import of torch, or of a package of the torch extra, on the way from a file to its caption."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name in ('torch', 'torchvision', 'h5py', 'yaml', 'filelock', 'sacrebleu', 'tabulate'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing)\n"
        "from captioner.cli.app import main\n"
        f"sys.argv = ['captioner', 'caption', '--model', {str(exported)!r}, {str(images[0])!r}]\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == load(exported, runtime="torch").caption(images[0])


def test_runtimes_that_cannot_run_a_model_are_refused(exported: Path) -> None:
    with pytest.raises(UsageError, match="holds no graphs for ONNX Runtime; captioner export adds them"):
        load(exported.parent / "tiny.safetensors", runtime="onnx")
    with pytest.raises(UsageError, match="choose one of auto, onnx, torch"):
        load(exported, runtime="tensorflow")
    with pytest.raises(UsageError, match="on the cpu only"):
        load(exported, device="cuda", runtime="onnx")


@pytest.mark.parametrize("damage", ["missing", "nonsense", "names", "shape"])
def test_damaged_graphs_are_named(exported: Path, images: list[Path], tmp_path: Path, damage: str) -> None:
    """Would catch ONNX Runtime's own errors reaching the user."""
    tensors = load_file(exported)
    with safe_open(exported, "np") as stream:
        header = stream.metadata()
    if damage == "missing":
        del tensors["onnx.step"]
    elif damage == "nonsense":
        tensors["onnx.step"] = np.frombuffer(b"nonsense", np.uint8)
    elif damage == "names":
        tensors["onnx.step.weights"] = np.frombuffer(b"model.image.weight\nmodel.nothing", np.uint8)
    else:
        tensors["model.lm_head.weight"] = tensors["model.lm_head.weight"][:, :-1].copy()
        contents = json.loads(header[FORMAT])
        header = {FORMAT: json.dumps(contents | {"checksum": None})}
    save_file(tensors, tmp_path / "bad.safetensors", header)
    with pytest.raises(CheckpointError, match="bad.safetensors: its graph step (is damaged|does not run)"):
        load(tmp_path / "bad.safetensors").caption(images[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"wiring": "1u", "cell": "gru"},
        {"wiring": "4f", "cell": "lstm", "residual": True, "tied": True, "normalize": "none", "image_dim": 0},
        {"wiring": "2u", "cell": "rnn", "normalize": "signed_sqrt"},
    ],
)
def test_every_decoder_can_be_exported(settings: dict[str, Any], tmp_path: Path) -> None:
    """Would catch a cell or an option that the exporter cannot write, or computes otherwise."""
    from captioner.export import make_graphs

    torch.manual_seed(0)
    model = LRCN(LRCNConfig(embedding_dim=6, hidden_dim=7, **({"image_dim": 5} | settings)), 11, 4).eval()
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    graphs = make_graphs(model, [], weights, "here")
    import onnxruntime as ort

    options = ort.SessionOptions()
    names = graphs["step.weights"].decode().split("\n")
    options.add_external_initializers(names, [ort.OrtValue.ortvalue_from_numpy(weights[one].numpy()) for one in names])
    session = ort.InferenceSession(graphs["step"], options, providers=["CPUExecutionProvider"])
    state = model.start(torch.rand(3, 4))
    tokens = torch.tensor([4, 5, 6])
    given = [tokens, state.image, *state.stack]
    found = session.run(
        None, {item.name: x.detach().numpy() for item, x in zip(session.get_inputs(), given, strict=True)}
    )
    with torch.no_grad():
        wanted, after = model.predict(tokens, state)
    for one, other in zip(found, [wanted, *after.stack], strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-5)
