"""Extraction fills a store with what captioning computes from the image files."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.backbones.spec import normalize, ten_crops
from captioner.cli.app import main
from captioner.data.images import ImageFile, find_named, open_image
from captioner.errors import FeatureStoreError, UsageError
from captioner.features.extract import extract
from captioner.features.store import FeatureStore
from captioner.parts import parse_part
from tests.features.fakes import tiny_backbone


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(7):
        colors = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colors).resize((30, 20)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")])
def test_extraction_is_what_captioning_computes(album: Path, workers: int, start: str | None) -> None:
    """The feature of a file in the store equals that of the file itself, whoever read it."""
    backbone, output = tiny_backbone(), album / "a.h5"
    seen: list[tuple[int, int]] = []
    report = extract(
        find_named([str(album)]),
        backbone,
        output,
        workers=workers,
        context=start,
        batch_size=3,
        dtype="float32",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (report.done, report.skipped, report.failed, seen) == (7, 0, [], [(3, 7), (6, 7), (7, 7)])
    store = FeatureStore(output)
    assert store.ids == [f"{number}.png" for number in range(7)]
    with torch.no_grad():
        for name in store.ids:
            own = backbone(backbone.preprocess(open_image(album / name))[None])
            np.testing.assert_allclose(store.get([name]), own, rtol=1e-5, atol=1e-6)
    assert (store.spec, store.weights_digest) == (backbone.spec, backbone.weights_digest)


def test_extraction_resumes_and_reports(album: Path, tmp_path: Path) -> None:
    """Finished images are not computed again, broken ones are tried again, and both are counted."""
    broken = album / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    output = tmp_path / "a.h5"

    def run(*sources: str) -> tuple[int, int, list[str]]:
        report = extract(find_named([str(album / source) for source in sources]), tiny_backbone(), output, workers=0)
        return report.done, report.skipped, [f"{Path(e.path).name}: {e.reason}"[:15] for e in report.failed]

    assert run("0.png", "1.png", "none*") == (2, 0, ["none*: no file "])
    assert run(".") == (4, 2, ["3.png: the file"])
    assert FeatureStore(output).unfinished == ["3.png"]
    broken.write_bytes(whole)
    assert run(".") == (1, 6, [])
    assert run(".") == (0, 7, [])
    assert FeatureStore(output).verify() == []


def test_ten_crops_are_averaged(album: Path, tmp_path: Path) -> None:
    backbone = tiny_backbone()
    extract(find_named([str(album)]), backbone, tmp_path / "a.h5", crops=10, workers=0, batch_size=20, dtype="float32")
    crops = normalize(
        torch.from_numpy(ten_crops(open_image(album / "2.png"), backbone.spec)), backbone.spec
    )  # (10, 3, S, S)
    own = backbone(crops).mean(0)
    np.testing.assert_allclose(FeatureStore(tmp_path / "a.h5").get(["2.png"])[0], own, rtol=1e-5, atol=1e-6)


def test_mirrored_images_have_stores_of_their_own(album: Path, tmp_path: Path) -> None:
    """Would catch mirrored features of an image that was not mirrored, and both kinds in one store."""
    backbone, path = tiny_backbone(), tmp_path / "a.h5"
    extract(find_named([str(album)]), backbone, path, mirror=True, workers=0, dtype="float32")
    own = backbone(backbone.preprocess(open_image(album / "2.png")).flip(-1)[None])
    np.testing.assert_allclose(FeatureStore(path, mirrored=True).get(["2.png"]), own, rtol=1e-5, atol=1e-6)
    with pytest.raises(FeatureStoreError, match="has mirrored True, this run has False; use another file"):
        extract(find_named([str(album)]), backbone, path, workers=0, dtype="float32")
    with pytest.raises(UsageError, match="use mirror with one crop"):
        extract([], backbone, path, mirror=True, crops=10)


def test_parts_read_as_one(album: Path, tmp_path: Path) -> None:
    """Two processes write into one folder; a lacking part is named."""
    folder = tmp_path / "features"
    for part in ("1/2", "2/2"):
        if part == "2/2":
            with pytest.raises(FeatureStoreError, match="part 2/2 is not there"):
                FeatureStore(folder).get(["1.png"])
        report = extract(find_named([str(album)]), tiny_backbone(), folder, part=parse_part(part), workers=0)
        assert report.done == (4 if part == "1/2" else 3)
    store = FeatureStore(folder)
    assert sorted(store.ids) == [f"{number}.png" for number in range(7)] and store.verify() == []
    assert store.get(store.ids).shape == (7, 12)
    for wrong in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(UsageError, match="like 2/4"):
            parse_part(wrong)


def test_equal_ids_of_different_files_are_refused(album: Path, tmp_path: Path) -> None:
    (album / "sub").mkdir()
    (album / "sub" / "1.png").write_bytes((album / "2.png").read_bytes())
    sources = [str(album / "1.png"), str(album / "sub" / "1.png")]
    with pytest.raises(UsageError, match="would share the id 1.png; give the folder above both"):
        extract(find_named(sources), tiny_backbone(), tmp_path / "a.h5")


def test_one_bad_path_costs_only_itself(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a name or a folder that ends the extraction of all other images."""
    (album / os.fsdecode(b"caf\xe9.png")).write_bytes((album / "0.png").read_bytes())
    bad = {
        os.fsdecode(b"caf\xe9.png"): "not UTF-8",
        "x" * 300 + ".png": "File name too long",
        "secret/1.png": "Permission denied",
        "nul\0.png": "null",
    }
    usual = Path.stat

    def denied(path: Path, **options: bool) -> os.stat_result:  # root may read every folder
        if "secret" in path.parts:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return usual(path, **options)

    monkeypatch.setattr(Path, "stat", denied)
    sources = [str(album / "1.png"), *(str(album / name) for name in bad), str(album)]
    report = extract(find_named(sources), tiny_backbone(), tmp_path / "a.h5", workers=0)
    assert report.done == 7 and len(report.failed) == len(bad) + 1  # the folder has the first of them as well
    for error, words in zip(report.failed, [*bad.values(), "not UTF-8"], strict=True):
        assert words in error.reason
    assert FeatureStore(tmp_path / "a.h5").verify() == []


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["captioner", *map(str, arguments)])
    try:
        return main()
    except SystemExit as left:
        return int(left.code or 0)


NETWORK = "from torch import nn\ndef net(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n"


def test_a_store_never_replaces_an_image(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch a folder of parts left beside the image, or a pipe that is waited for."""
    os.mkfifo(tmp_path / "pipe")
    for output, words in (
        (album / "0.png", "exists and is not an HDF5 file"),
        (album / "1.png", "is the same file as"),
        (tmp_path / "pipe", "is not a regular file"),
    ):
        assert command(monkeypatch, "extract", album / "1.png", "-o", output) > 0
        assert words in capsys.readouterr().err
    assert len(list(album.iterdir())) == 7


def test_commands(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``captioner extract`` names broken images on stderr with status 1; ``features info`` says what a file is."""
    torch.save({"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.zeros(4)}, tmp_path / "net.pth")
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "net.yaml").write_text("architecture: net.py:net\nweights: net.pth\nsize: 16\ndimension: 4\n")
    (album / "broken.jpg").write_text("text")
    output = tmp_path / "a.h5"
    options = ["--backbone", f"local:{tmp_path}/net.yaml", "-o", output, "--workers", 0]
    assert command(monkeypatch, "extract", album, *options) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    lines = captured.err.splitlines()
    assert lines[0].startswith(f"error: {album}/broken.jpg: not an image") and "7 added" in lines[1]
    assert command(monkeypatch, "features", "info", output, "--json", "--verify") == 1
    summary = json.loads(capsys.readouterr().out)
    expected = {"rows": 8, "finished": 7, "shape": [4], "dtype": "float16", "crops": 1, "complete": False}
    assert expected == {name: summary[name] for name in expected}
    assert summary["problems"] == ["1 rows are unfinished, first broken.jpg"]
    (album / "broken.jpg").unlink()
    assert command(monkeypatch, "extract", album, *options) == 0
    assert "0 added, 7 there already" in capsys.readouterr().err
    assert command(monkeypatch, "extract", album, *options, "--dtype", "float32") == 1
    assert "has dtype float16, this run has float32" in capsys.readouterr().err
    assert command(monkeypatch, "extract", album, *options, "--device", "abacus") == 2
    assert capsys.readouterr().err.startswith("error: device 'abacus' is not available")
    assert command(monkeypatch, "extract", album, *options, "--mirror", "-o", tmp_path / "b.h5") == 0
    for file, mirrored in ((output, False), (tmp_path / "b.h5", True)):
        assert command(monkeypatch, "features", "info", file) == 0
        shown = capsys.readouterr().out
        assert "local:" in shown and f"mirrored       {mirrored}\n" in shown


@pytest.mark.shared_data
def test_real_networks_give_their_published_features(shared_data: Path, tmp_path: Path) -> None:
    """A real local network: its own function and ours agree on a real photograph."""
    folder = shared_data / "weights" / "mobilenet_edgetpu_1.0_224"
    record = {"architecture": f"{folder}/model.py:mobilenet_edgetpu", "weights": f"{folder}/model.safetensors"}
    fields = {"size": 224, "resize": "squash", "mean": 0.5, "std": 0.5, "output": "feature_map()", "dimension": 1280}
    (tmp_path / "net.yaml").write_text(json.dumps({**record, **fields}))
    from captioner.backbones import load_backbone

    backbone = load_backbone(f"local:{tmp_path}/net.yaml")
    photo = sorted((shared_data / "flickr8k" / "images").iterdir())[0]
    image = open_image(photo)
    raw = torch.from_numpy(np.array(image.resize((224, 224), Image.Resampling.BICUBIC))).permute(2, 0, 1)[None]
    with torch.no_grad():
        published = backbone.network(backbone.network.preprocess(raw))[0]  # type: ignore[operator]
        torch.testing.assert_close(backbone(backbone.preprocess(image)[None]), published, rtol=1e-4, atol=1e-4)


def test_parts_of_another_count_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part-001-of-002.h5").touch()
    found = [ImageFile(tmp_path / "gone.png", "gone.png")]
    report = extract(found, tiny_backbone(), tmp_path / "a.h5", workers=0)
    assert [error.reason for error in report.failed] == ["no such file"]
    assert not (tmp_path / "a.h5").exists()
    Image.new("RGB", (8, 8)).save(tmp_path / "here.png")
    with pytest.raises(UsageError, match="other parts"):
        extract(
            [ImageFile(tmp_path / "here.png", "here.png")], tiny_backbone(), tmp_path / "parts", part=(1, 3), workers=0
        )
