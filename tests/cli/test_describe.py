"""``captioner describe``: label predictions and videos to sentences, and the file that holds all three stages."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from captioner import load
from captioner.backbones import load_backbone
from captioner.checkpoint import save_checkpoint
from captioner.crf.clips import ClipArrays
from captioner.crf.graph import all_pairs
from captioner.crf.model import CRF, CRFConfig, CRFFile, FeatureSource, Fold, load_crf, save_crf
from captioner.crf.predictions import LabelPredictions, NodePredictions, write_label_predictions
from captioner.crf.predictor import predict
from captioner.decoding.config import DecodingConfig
from captioner.errors import CheckpointError, UsageError
from captioner.features.label_predictions import open_store
from captioner.files import read_tensors
from captioner.models.encoder_decoder import EncoderDecoder
from captioner.models.lrcn import LRCN, LRCNConfig
from captioner.predictors.video import ENTRY, ClipCaptioner, load_clip_captioner, load_vision
from captioner.tasks.sentences.config import ClipCaptioningConfig
from captioner.text.vocabulary import END, SPECIALS, Vocabulary
from scripts.pack_clip_captioner import main as pack_main
from scripts.pack_clip_captioner import pack
from tests.conftest import Run
from tests.tiny import WORDS, network, save_tiny

LABELS = {"activity": ("-", "cut", "take out"), "object": ("-", "cutting board", "knife")}
IDS = ["s1_0_9", "s1_9_20", "s2_0_5"]


def save_predictions(path: Path, labels: Mapping[str, tuple[str, ...]] = LABELS) -> Path:
    random = np.random.default_rng(0)
    nodes = {}
    for name, values in labels.items():
        prob = random.dirichlet(np.full(len(values), 0.5), len(IDS))
        nodes[name] = NodePredictions(
            values, np.log(prob).astype(np.float32), random.integers(0, len(values), len(IDS))
        )
    write_label_predictions(path, LabelPredictions(IDS, nodes))
    return path


def save_clip_captioner_of(path: Path, predictions: Path, *kinds: str) -> Path:
    """A checkpoint of a random decoder that reads ``kinds`` of predictions, as training writes it."""
    specs = [open_store(f"{predictions}@{kind}").spec for kind in kinds]
    encodes, names = kinds == ("map",), tuple(name for spec in specs for name in spec.names)
    torch.manual_seed(3)
    vocabulary = Vocabulary(SPECIALS + tuple(WORDS))
    wiring = {"wiring": "2e", "architecture": "encoder_decoder"} if encodes else {"wiring": "2u"}
    config = LRCNConfig(embedding_dim=12, hidden_dim=16, image_dim=0, normalize="none", **wiring)
    model = (EncoderDecoder if encodes else LRCN)(config, len(vocabulary), len(names), names)
    with torch.no_grad():  # so that sentences differ from clip to clip
        for parameter in model.parameters():
            parameter.mul_(3)
        model.lm_head.bias[END] = -9  # and have words
    decoding = DecodingConfig(beam_size=3, max_length=7)
    settings = ClipCaptioningConfig(model=model.config, decoding=decoding)
    save_checkpoint(path, "clip_captioning", model, settings, specs, vocabulary)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of files that no test changes."""
    return tmp_path_factory.mktemp("describe")


@pytest.fixture(scope="module")
def predictions(folder: Path) -> Path:
    return save_predictions(folder / "p.h5")


@pytest.fixture(scope="module")
def model(predictions: Path, folder: Path) -> Path:
    """A clip captioner of probabilities."""
    return save_clip_captioner_of(folder / "c.safetensors", predictions, "marginals")


@pytest.fixture(scope="module")
def stages(model: Path, folder: Path) -> tuple[Path, Path, Path]:
    """A clip captioner of probabilities, a CRF with folds on features of a tiny CNN, and that CNN's weights."""
    from safetensors.torch import save_file

    backbone = load_backbone("compact", state=network(0))
    torch.manual_seed(0)
    crf = CRF(CRFConfig(chain=True), LABELS, backbone.spec.dimension, all_pairs(2))
    colors = [Image.new("RGB", (64, 48), color) for color in ("red", "lime", "blue", "white")]
    with torch.no_grad():  # so that it believes something else of each color
        features = backbone(torch.stack([backbone.preprocess(color) for color in colors]))
        crf.feature_mean.copy_(features.mean(0))
        crf.feature_std.copy_(features.std(0) + 1e-3)
        crf.output.weight.normal_(0, 0.2)
    spec = backbone.spec
    source = FeatureSource(spec.key, spec.dimension, spec.digest, backbone.weights_digest)
    save_crf(folder / "crf.safetensors", CRFFile(crf, (Fold(frozenset("0"), copy.deepcopy(crf)),), (source,)))
    save_file(network(0), folder / "cnn.safetensors")
    return model, folder / "crf.safetensors", folder / "cnn.safetensors"


@pytest.fixture(scope="module")
def packed(stages: tuple[Path, Path, Path], folder: Path) -> Path:
    clip_captioner, crf, weights = stages
    pack(clip_captioner, crf, "compact", folder / "all.safetensors", weights, frames=4)
    return folder / "all.safetensors"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two seconds, four colors."""
    pytest.importorskip("av", reason="needs PyAV: pip install 'captioner[video]'")
    from tests.videos import plain, save_video

    shown = {0: "red", 500: "green", 1000: "blue", 1500: "white", 1960: "white"}
    return save_video(tmp_path / "v.mp4", [(time, plain(color)) for time, color in shown.items()])


def test_load_returns_a_clip_captioner(model: Path, predictions: Path) -> None:
    """Would catch a model of label predictions that is loaded as one of images, and clips that lose their order."""
    captioner = load(model)
    assert isinstance(captioner, ClipCaptioner)
    results = list(captioner.results(predictions, num_return_sequences=2))
    assert [result.image for result in results] == IDS
    ranked = [[caption.text for caption in result.captions] for result in results]
    assert captioner.caption(predictions, num_return_sequences=2) == ranked
    assert captioner.caption(predictions) == [first for first, _ in ranked]
    assert captioner.caption(predictions, ids=IDS[1:2]) == [ranked[1][0]]


@pytest.mark.parametrize(
    ("source", "options", "error", "reason"),
    [
        (["a.jpg"], {}, CheckpointError, "captions clips: give it label predictions or a video, not images"),
        ("p.h5", {"intervals": 5.0}, UsageError, "intervals are for a video; p.h5 holds label predictions"),
        ("v.mp4", {"ids": ["a"]}, UsageError, "ids are for label predictions, but v.mp4 is read as a video"),
        ("v.mp4", {"beam_size": 2, "num_samples": 2}, UsageError, "cannot be combined"),
    ],
)
def test_sources_and_options_that_a_clip_captioner_refuses(
    source: object, options: dict, error: type[Exception], reason: str, model: Path
) -> None:
    with pytest.raises(error, match=reason):
        load(model).results(source, **options)


@pytest.mark.parametrize("kinds", [("map",), ("marginals",), ("map", "marginals")])
def test_each_clip_has_a_line(kinds: tuple[str, ...], cli: Run, predictions: Path, tmp_path: Path) -> None:
    """Would catch the wrong kind of predictions taken for a model, a model of both kinds that training writes and
    nothing reads, and clips and sentences out of step."""
    model = save_clip_captioner_of(tmp_path / "m.safetensors", predictions, *kinds)
    status, lines, _ = cli("describe", predictions, "--model", model)
    wanted = load(model).caption_features([open_store(f"{predictions}@{kind}") for kind in kinds])
    assert (status, lines) == (0, [f"{one.image}\t{one.captions[0].text}" for one in wanted])
    assert len(set(line.partition("\t")[2] for line in lines)) > 1
    assert cli("describe", predictions, "--model", model, "--clip", IDS[1])[1] == [lines[1].partition("\t")[2]]
    chosen = cli("describe", predictions, "--model", model, "--clip", IDS[2], "--clip", IDS[0])[1]
    assert chosen == [lines[2], lines[0]]


def test_json_and_results(cli: Run, model: Path, predictions: Path, tmp_path: Path) -> None:
    _, lines, _ = cli("describe", predictions, "--model", model)
    _, objects, _ = cli("describe", predictions, "--model", model, "--json", "--num-return-sequences", 2)
    assert [json.loads(one)["clip"] for one in objects] == [name for name in IDS for _ in range(2)]
    assert set(json.loads(objects[0])) == {"clip", "caption", "log_prob", "model"}
    results = tmp_path / "out" / "r.json"
    status, out, err = cli("describe", predictions, "--model", model, "-o", results)
    assert (status, out, len(err)) == (0, [], 1)
    assert [f"{one['image_id']}\t{one['caption']}" for one in json.loads(results.read_text())] == lines


def test_an_interrupted_run_goes_on(
    cli: Run, model: Path, predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch sentences that are lost with the results file that could not be written."""
    results = tmp_path / "results.json"
    command = ["describe", predictions, "--model", model, "-o", results]
    assert cli(*command)[0] == 0
    whole = results.read_text()
    with monkeypatch.context() as patch:
        patch.setattr("captioner.cli.describe.write_coco_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cli(*command)
    partial = tmp_path / "results.json.partial"
    assert len(partial.read_text().splitlines()) == 1 + len(IDS)
    with monkeypatch.context() as patch:
        patch.setattr(ClipCaptioner, "decode", None)  # nothing is left to do
        status, _, err = cli(*command, "--clip", IDS[1], "--clip", IDS[0], "--clip", IDS[2])
    assert status == 0 and any(line.startswith("note: resuming with 3 captions") for line in err)
    by_id = {one["image_id"]: one for one in json.loads(results.read_text())}
    assert by_id == {one["image_id"]: one for one in json.loads(whole)}
    assert not partial.exists()


def test_an_unknown_clip_costs_only_itself(cli: Run, model: Path, predictions: Path) -> None:
    status, lines, err = cli("describe", predictions, "--model", model, "--clip", IDS[0], "--clip", "s9")
    assert (status, len(lines), err) == (1, 1, [f"error: s9: no such clip in {predictions}"])
    status, lines, err = cli("describe", predictions, "--model", model, "--clip", "s9")
    assert (status, lines, err) == (1, [], [f"error: s9: no such clip in {predictions}"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("labels", "which has other labels than the labels@"),
        ("nan", "holds NaN"),
        ("missing", "no such label-predictions file"),
        ("text", "damaged, or not an HDF5 file"),
        ("empty", "holds no clips"),
    ],
)
def test_predictions_that_cannot_be_described(
    kind: str, message: str, cli: Run, model: Path, predictions: Path, tmp_path: Path
) -> None:
    """Would catch sentences made from columns that mean something else, or from NaN."""
    path = tmp_path / "bad.h5"
    if kind in ("labels", "nan"):
        save_predictions(path, LABELS | {"object": ("-", "fork", "knife")} if kind == "labels" else LABELS)
    if kind == "nan":
        with h5py.File(path, "a") as file:
            file["object/log_marginals"][1, 1] = np.nan
    if kind == "text":
        path.write_text("knife")
    if kind == "empty":
        nodes = {k: NodePredictions(v, np.zeros((0, 3), np.float32), np.zeros(0, int)) for k, v in LABELS.items()}
        write_label_predictions(path, LabelPredictions([], nodes))
    status, lines, err = cli("describe", path, "--model", model)
    assert (status, lines, len(err)) == (1, [], 1)
    assert message in err[0]


def test_other_models_are_refused(cli: Run, predictions: Path, tmp_path: Path) -> None:
    status, _, err = cli("describe", predictions, "--model", save_tiny(tmp_path / "photos.safetensors"))
    assert status == 1
    assert err == [
        f"error: {tmp_path / 'photos.safetensors'} is not a clip captioner: it reads compact, not label predictions"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["p.h5", "--intervals", "0-1"], "--intervals is for a video, but p.h5 is read as label predictions"),
        (["p.h5", "--srt", "x.srt"], "--srt is for a video"),
        (["v.mp4", "--clip", "a"], "--clip is for label predictions, but v.mp4 is read as a video"),
        (["v.mp4", "-o", "r.json"], "-o is for label predictions"),
        (["p.h5", "-o", "r.json", "--num-return-sequences", "2"], "-o"),
        (["v.mp4", "--intervals", "0-1", "--every", "2"], "not both"),
        (["v.mp4", "--intervals", "0:1"], "seconds such as 0-5.2,5.2-9"),
        (["v.mp4", "--every", "0"], "--every must be at least"),
        (["v.mp4", "--method", "greedy", "--beam-size", "3"], "beam_size is for method beam, not greedy"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str, cli: Run) -> None:
    status, lines, err = cli("describe", *arguments, "--model", "none.safetensors")
    assert (status, lines, len(err)) == (2, [], 1)
    assert message in err[0]


def test_the_packed_file_is_all_three(
    packed: Path, stages: tuple[Path, Path, Path], predictions: Path, cli: Run
) -> None:
    """Would catch a stage that lost something on the way into the one file, or that another stage trips over."""
    clip_captioner, crf, _ = stages
    assert (
        cli("describe", predictions, "--model", packed)[1] == cli("describe", predictions, "--model", clip_captioner)[1]
    )
    together, alone = load_crf(packed), load_crf(crf)
    assert together.folds == ()
    assert together.model.state_dict().keys() == alone.model.state_dict().keys()
    assert all(torch.equal(one, alone.model.state_dict()[name]) for name, one in together.model.state_dict().items())
    vision = load_vision(packed)
    assert (vision.backbone.weights_digest, vision.number) == (alone.features[0].weights_digest, 4)


@pytest.mark.parametrize(
    "header", ["[]", "[" * 20_000, '{"version": 1}', '{"version": 1, "number": 0}', '{"version": 9}']
)
def test_a_damaged_header_of_a_packed_file_is_one_error(packed: Path, tmp_path: Path, header: str) -> None:
    """Would catch a traceback: what is in the header was not looked at."""
    tensors, entries = read_tensors(packed)
    save_file(tensors, tmp_path / "a.safetensors", entries | {ENTRY: header})
    with pytest.raises(CheckpointError, match="its header is damaged|frames of version 9"):
        load_vision(tmp_path / "a.safetensors")


def test_a_video_becomes_sentences_with_times(cli: Run, packed: Path, video: Path) -> None:
    """The whole way against its parts by hand, intervals out of order; would catch clips exchanged on the way."""
    from captioner.data.video import read_frames
    from captioner.features.frames import clip_features

    intervals = [(1.0, 2.0), (0.0, 1.0), (0.5, 1.5)]
    status, lines, err = cli("describe", video, "--intervals", "1-2,0-1,.5-1.5", "--model", packed)
    clip_captioner = load_clip_captioner(packed)
    crf = load_crf(packed).model
    clips = clip_features(read_frames(video), sorted(intervals), clip_captioner.vision.backbone, number=4)
    features = np.stack([clip.feature for clip in clips])
    believed, _ = predict(crf, ClipArrays(list("abc"), ["v"] * 3, features, np.full((3, 2), -1)))
    with torch.inference_mode():
        sentences = clip_captioner.decode(believed.vector("marginals"), clip_captioner.checkpoint.config.decoding)
    wanted = {(clip.start, clip.end): found[0].text for clip, found in zip(clips, sentences, strict=True)}
    assert (status, err) == (0, [])
    assert lines == [f"{start:.3f}\t{end:.3f}\t{wanted[start, end]}" for start, end in intervals]
    assert len(set(wanted.values())) > 1


def test_windows_json_and_subtitles(cli: Run, packed: Path, video: Path, tmp_path: Path) -> None:
    srt, vtt = tmp_path / "v.srt", tmp_path / "subtitles" / "v.vtt"
    status, lines, _ = cli("describe", video, "--every", 1, "--json", "--srt", srt, "--vtt", vtt, "--model", packed)
    objects = [json.loads(line) for line in lines]
    assert status == 0
    assert [(one["start"], one["end"]) for one in objects] == [(0, 1), (1, pytest.approx(2, abs=1e-3))]
    assert {one["video"] for one in objects} == {str(video)}
    assert srt.read_text().startswith(f"1\n00:00:00,000 --> 00:00:01,000\n{objects[0]['caption']}\n")
    assert vtt.read_text().startswith(f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{objects[0]['caption']}\n")
    assert len(cli("describe", video, "--model", packed)[1]) == 1, "ten seconds are more than the video has"


def test_subtitles_never_replace_something_else(cli: Run, packed: Path, video: Path, tmp_path: Path) -> None:
    """Would catch a video turned into its subtitles, and two kinds of subtitles in one file."""
    before = video.read_bytes()
    shared = ["describe", video, "--model", packed, "--every", 2]
    other = tmp_path / "notes.srt"
    other.write_text("to buy: milk\n")
    for arguments, words in (
        (["--srt", str(video)], "is the same file as"),
        (["--vtt", str(packed)], "is the same file as"),
        (["--srt", str(other)], "exists and is not a file of SubRip subtitles"),
        (["--srt", str(tmp_path / "a"), "--vtt", str(tmp_path / "b/../a")], "is the same file as"),
    ):
        status, _, err = cli(*shared, *arguments)
        assert status == 2 and words in err[0]
    assert video.read_bytes() == before and other.read_text() == "to buy: milk\n"
    for _ in range(2):
        assert cli(*shared, "--srt", str(tmp_path / "c"), "--vtt", str(tmp_path / "d"))[0] == 0


def test_a_bad_interval_costs_only_itself(cli: Run, packed: Path, video: Path, tmp_path: Path) -> None:
    """Would catch sentences that move up to the interval before theirs, and a batch lost for one mistake."""
    listed = tmp_path / "intervals.tsv"
    listed.write_text("0\t1\tcut\n\n50\t60\n1.5\t0.5\n1\t2\n")
    status, lines, err = cli("describe", video, "--intervals", listed, "--srt", tmp_path / "v.srt", "--model", packed)
    _, good, _ = cli("describe", video, "--intervals", "0-1,1-2", "--model", packed)
    assert (status, lines) == (1, good)
    assert [line.partition("v.mp4: ")[2][:8] for line in err] == ["50-60 is", "1.5-0.5 "]
    assert (tmp_path / "v.srt").read_text().count("-->") == 2
    listed.write_text("0\t1\n1 second\n")
    status, lines, err = cli("describe", video, "--intervals", listed, "--model", packed)
    assert (status, lines, err) == (
        1,
        [],
        [f"error: {listed}, line 2: expected START<tab>END in seconds, not 1 second"],
    )


def test_a_clock_that_jumps_is_noted(cli: Run, packed: Path, tmp_path: Path) -> None:
    """Would catch a note that only Python's users see."""
    pytest.importorskip("av", reason="needs PyAV: pip install 'captioner[video]'")
    from tests.videos import plain, save_video

    video = save_video(tmp_path / "v.ts", [(time, plain("red")) for time in (0, 40, 7_200_000, 7_200_040)])
    status, lines, err = cli("describe", video, "--model", packed)
    assert (status, len(lines), len(err)) == (0, 1, 1)
    assert err[0].startswith(f"note: {video}: its timestamps jump from ")


def test_a_model_without_crf_and_a_file_that_is_no_video(cli: Run, model: Path, packed: Path, video: Path) -> None:
    status, _, err = cli("describe", video, "--model", model)
    assert (status, len(err)) == (1, 1)
    assert "reads label predictions only; python -m scripts.pack_clip_captioner adds" in err[0]
    video.write_text("knives")
    status, _, err = cli("describe", video, "--model", packed)
    assert (status, len(err)) == (1, 1)
    assert "v.mp4: not a video" in err[0]


@pytest.mark.parametrize("what", ["weights_digest", "digest", "dimension", "stores", "labels", "photos"])
def test_stages_that_do_not_fit_are_not_packed(
    what: str,
    stages: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Would catch a CRF fed with numbers of another network, which still gives fluent sentences."""
    clip_captioner, source, weights = stages
    path, crf = tmp_path / "crf.safetensors", load_crf(source)
    save_crf(path, crf)
    [known] = crf.features
    messages = {
        "weights_digest": f"compact has weights digest {known.weights_digest}, not 0000",
        "digest": f"compact has digest {known.digest}, not 0000",
        "dimension": f"compact has dimension {known.dimension}, not 7",
        "stores": "the CRF needs 2 feature stores (compact, compact), not those of one network",
        "labels": "the CRF has 4 labels",
        "photos": "is not a clip captioner",
    }
    if hasattr(known, what):
        changed: dict[str, Any] = {what: 7 if what == "dimension" else "0000"}
        save_crf(path, replace(crf, features=(replace(known, **changed),)))
    elif what == "stores":
        save_crf(path, replace(crf, features=(known, known)))
    elif what == "labels":
        other = CRF(CRFConfig(), {"activity": ("-", "cut"), "object": ("-", "knife")}, known.dimension, all_pairs(2))
        save_crf(path, CRFFile(other, features=(known,)))
    else:
        clip_captioner = save_tiny(tmp_path / "photos.safetensors")
    output = tmp_path / "all.safetensors"
    arguments = f"{clip_captioner} --crf {path} --backbone compact --weights {weights} -o {output}"
    monkeypatch.setattr("sys.argv", ["pack_clip_captioner", *arguments.split()])
    assert pack_main() == 1
    err = capsys.readouterr().err
    assert messages[what] in err
    assert err.count("\n") == 1
    assert not output.exists()


def test_the_web_page_says_the_same(packed: Path, video: Path, tmp_path: Path) -> None:
    """Would catch sentences of other windows, and a model that is asked for what it does not know."""
    pytest.importorskip("starlette", reason="needs the extra web")
    from captioner.web.app import Settings
    from tests.web.test_app import open_client

    clip_captioner = load(packed)
    (wanted,) = clip_captioner.results(video)
    with open_client(load(), Settings(tmp_path / "index", video_models=[clip_captioner])) as client:
        (clip,) = client.post("/api/video", files={"video": video.read_bytes()}).json()["clips"]
        page = client.post("/caption", files={"image": video.read_bytes()}).text
    assert clip["caption"] == wanted.captions[0].text and clip["model"] == str(packed)
    assert (clip["start"], clip["end"]) == (0, 2) and clip["log_prob"] == pytest.approx(wanted.captions[0].log_prob)
    assert clip["caption"] in page
