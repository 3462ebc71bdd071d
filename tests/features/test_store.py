"""The feature store keeps what was finished, come what may; extraction fills it with what captioning computes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from captioner.backbones import Backbone, BackboneSpec
from captioner.backbones.layers import reader
from captioner.backbones.spec import normalize, ten_crops
from captioner.cli.app import main
from captioner.data.images import Found, find_named, open_image
from captioner.errors import FeatureStoreError, UsageError
from captioner.features.extract import extract, parse_part
from captioner.features.store import FeatureStore, FeatureWriter

SPEC = BackboneSpec("tiny", size=8, resize="squash", dimension=12)


def tiny_backbone(**fields: Any) -> Backbone:
    """Averages of 4 x 4 pixels: 12 numbers that depend on the image, and no weights."""
    network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    return Backbone(replace(SPEC, **fields), network, reader(network, "", "tiny")).eval()


def vector(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=12).astype(np.float32)


def fill(path: Path, numbers: range, **options: Any) -> None:
    with FeatureWriter(path, options.pop("spec", SPEC), options.pop("digest", "w"), **options) as writer:
        for number in numbers:
            writer.add(f"{number}.jpg", vector(number))


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(7):
        colors = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colors).resize((30, 20)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("float32", 0)])
def test_rows_come_back_in_the_order_asked(tmp_path: Path, dtype: str, tolerance: float) -> None:
    fill(tmp_path / "a.h5", range(20), dtype=dtype)
    store = FeatureStore(tmp_path / "a.h5")
    got = store.get(["7.jpg", "3.jpg", "7.jpg"])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [vector(7), vector(3), vector(7)], rtol=tolerance, atol=tolerance)
    assert (store.dimension, len(store), store.ids[4], store.spec) == (12, 20, "4.jpg", SPEC)
    assert store.get([]).shape == (0, 12)
    assert store.verify() == [] and not store.is_partial
    with pytest.raises(FeatureStoreError, match=r"no features of x, y, z and 1 more$"):
        store.get(["x", "1.jpg", "y", "z", "w"])
    with pytest.raises(FeatureStoreError, match=r"no features of a/4.jpg; it has 4.jpg, as captioner extract"):
        store.get(["a/4.jpg"])


def test_writing_again_adds_what_is_missing(tmp_path: Path) -> None:
    """A block that raises keeps its rows for the next run; a second run keeps the first one's."""
    path = tmp_path / "a.h5"
    with pytest.raises(RuntimeError), FeatureWriter(path, SPEC, "w") as writer:
        writer.add("0.jpg", vector(0))
        raise RuntimeError
    partial = FeatureStore(path)
    assert partial.ids == ["0.jpg"] and any("interrupted" in problem for problem in partial.verify())
    fill(path, range(1, 3))
    with FeatureWriter(path, SPEC, "w") as writer:
        assert writer.plan(["2.jpg", "3.jpg", "4.jpg"]) == ["3.jpg", "4.jpg"]
        writer.add("4.jpg", vector(4))
        writer.add("0.jpg", vector(9))  # is there already
    store = FeatureStore(path)
    assert sorted(store.ids) == ["0.jpg", "1.jpg", "2.jpg", "4.jpg"] and store.unfinished == ["3.jpg"]
    np.testing.assert_allclose(store.get(["0.jpg", "4.jpg"]), [vector(0), vector(4)], atol=1e-3, rtol=1e-3)
    assert store.verify() == ["1 rows are unfinished, first 3.jpg"]
    assert [item.name for item in tmp_path.iterdir()] == ["a.h5"]


# Forks writers and kills each at a random moment, in the middle of flushes and merges; after each death everything that
# was acknowledged must be readable and right.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, ".")
from captioner.features import store
from tests.features.test_store import SPEC, vector

path, rounds, store.FLUSH_ROWS = Path(sys.argv[1]), int(sys.argv[2]), 5
random.seed(0)
vectors = [vector(number) for number in range(100)]

def write(answers):
    while True:  # each turn adds 30 rows in 6 flushes, then merges
        with store.FeatureWriter(path, SPEC, "w", "float32") as writer:
            first = len(writer.finished)
            for number in range(first, first + 30):
                writer.add(str(number), vectors[number % 100])
                if not writer._waiting:
                    os.write(answers, f"{number}\\n".encode())

total, merged = 0, 0
for _ in range(rounds):
    read, answers = os.pipe()
    child = os.fork()
    if not child:
        write(answers)
    os.close(answers)
    with os.fdopen(read) as lines:
        for _ in range(random.randint(1, 20)):  # flushes, however long a busy machine takes for them
            total = max(total, int(lines.readline()) + 1)
        time.sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        total = max([total, *(int(line) + 1 for line in lines)])
    features = store.FeatureStore(path)
    names = [str(number) for number in range(total)]
    assert (features.get(names) == [vectors[number % 100] for number in range(total)]).all()
    assert len(set(features.ids)) == len(features.ids)
    merged += path.exists()
assert merged > rounds / 2 and total > 100, (merged, total)
with store.FeatureWriter(path, SPEC, "w", "float32"):
    pass
features = store.FeatureStore(path)
assert features.verify() == [], features.verify()
assert os.listdir(path.parent) == [path.name], os.listdir(path.parent)
print(total)
"""


def test_nothing_finished_is_lost_by_kill_9(tmp_path: Path) -> None:
    script = [sys.executable, "-W", "error", "-c", KILLER, str(tmp_path / "store" / "a.h5"), "12"]
    run = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "a.h5", SPEC, "w"), pytest.raises(FeatureStoreError, match="another process"):
        FeatureWriter(tmp_path / "a.h5", SPEC, "w")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"spec": replace(SPEC, key="other")},
            "has backbone tiny, this run has other",
        ),
        ({"spec": replace(SPEC, size=9)}, "preprocessing"),
        ({"digest": "v"}, "has weights digest w, this run has v"),
        ({"dtype": "float32"}, "has dtype float16, this run has float32"),
        ({"crops": 10}, "has crops 1, this run has 10"),
        ({"mirrored": True}, "has mirrored False, this run has True"),
        ({"precision": "bfloat16"}, "precision"),
    ],
)
def test_refuses_to_mix(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Would catch features of two networks in one file, in a run and in a folder."""
    fill(tmp_path / "a.h5", range(3))
    with pytest.raises(FeatureStoreError, match=message):
        fill(tmp_path / "a.h5", range(3, 5), **options)
    fill(tmp_path / "b.h5", range(3, 5), **options)
    with pytest.raises(FeatureStoreError, match=r"b.h5 has .*, .*a.h5 has"):
        FeatureStore(tmp_path).get(["1.jpg"])
    assert FeatureStore(tmp_path / "a.h5").verify() == []  # the refused run left nothing behind


def test_readers_name_the_other_backbone(tmp_path: Path) -> None:
    fill(tmp_path / "a.h5", range(3))
    store = FeatureStore(tmp_path / "a.h5")
    store.check_backbone(SPEC, "w")
    with pytest.raises(FeatureStoreError, match="has backbone tiny, the model has other"):
        store.check_backbone(BackboneSpec("other", size=8, resize="squash"))
    with pytest.raises(FeatureStoreError, match="weights digest w, the model has v"):
        store.check_backbone(SPEC, "v")


@pytest.mark.parametrize(
    ("value", "message"), [(1e5, "1e\\+05, too large for float16; use --dtype float32"), (np.nan, "not finite")]
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, value: float, message: str) -> None:
    """float16 ends at 65,504; would catch infinities written silently."""
    with pytest.raises(FeatureStoreError, match=message), FeatureWriter(tmp_path / "a.h5", SPEC, "w") as writer:
        writer.add("a", np.full(12, value, np.float32))


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(FeatureStoreError, match="no such file"):
        FeatureStore(path).get(["x"])
    with pytest.raises(FeatureStoreError, match="no feature files in this folder"):
        FeatureStore(tmp_path).get(["x"])
    path.write_bytes(b"nonsense")
    with pytest.raises(FeatureStoreError, match="not a readable HDF5 file"):
        FeatureStore(path).get(["x"])
    with h5py.File(path, "w") as file:
        file["x"] = [1]
    with pytest.raises(FeatureStoreError, match="not of captioner's features"):
        FeatureStore(path).get(["x"])
    path.unlink()
    fill(path, range(2))
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 7
    with pytest.raises(FeatureStoreError, match="format version 7, this program reads version 1"):
        FeatureStore(path).get(["x"])


def test_damage_is_found(tmp_path: Path) -> None:
    """Repeated ids, values that are not finite, and files stored in chunks by other programs, which stay readable."""
    fill(tmp_path / "a.h5", range(4))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        rows = file["features"][:]
        rows[2, 3] = np.inf
        del file["features"]
        file.create_dataset("features", data=rows, chunks=(1, 12), compression="gzip")
        file["ids"][1] = "0.jpg"
    problems = FeatureStore(tmp_path / "a.h5").verify()
    assert len(problems) == 3 and "0.jpg is in" in problems[0] and "not finite, first 2.jpg" in problems[-1]
    assert "not those that were written" in problems[1]
    np.testing.assert_allclose(FeatureStore(tmp_path / "a.h5").get(["3.jpg"]), [vector(3)], atol=1e-3, rtol=1e-3)


class Rows(Dataset[tuple[int, torch.Tensor]]):
    """Row i of a store, as a training loop would read it."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        return index, torch.from_numpy(self.store.get([f"{index}.jpg"])[0])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_right_rows(tmp_path: Path, start: str) -> None:
    """Would catch HDF5 handles shared between processes, which return other rows or hang."""
    fill(tmp_path / "a.h5", range(40), dtype="float32")
    store = FeatureStore(tmp_path / "a.h5")
    store.get(["0.jpg"])  # open it in this process first
    loader = DataLoader(Rows(store), batch_size=4, num_workers=2, multiprocessing_context=start)
    seen = {int(i): row.numpy() for numbers, rows in loader for i, row in zip(numbers, rows, strict=True)}
    assert len(seen) == 40
    for number, row in seen.items():
        np.testing.assert_array_equal(row, vector(number))
    assert len(pickle.dumps(store)) < 500


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
    store.check_backbone(backbone.spec, backbone.weights_digest)


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
    crops = normalize(ten_crops(open_image(album / "2.png"), backbone.spec), backbone.spec)  # (10, 3, S, S)
    own = backbone(crops).mean(0)
    np.testing.assert_allclose(FeatureStore(tmp_path / "a.h5").get(["2.png"])[0], own, rtol=1e-5, atol=1e-6)


def test_mirrored_images_have_stores_of_their_own(album: Path, tmp_path: Path) -> None:
    """Would catch mirrored features where captions or training want those of the images as they are, or the reverse.

    A store of before there were mirrored ones has no such attribute, and is of images as they are.
    """
    backbone, path, plain = tiny_backbone(), tmp_path / "a.h5", tmp_path / "b.h5"
    extract(find_named([str(album)]), backbone, path, mirror=True, workers=0, dtype="float32")
    store = FeatureStore(path, mirrored=True)
    own = backbone(backbone.preprocess(open_image(album / "2.png")).flip(-1)[None])
    np.testing.assert_allclose(store.get(["2.png"]), own, rtol=1e-5, atol=1e-6)
    assert pickle.loads(pickle.dumps(store)).summary()["mirrored"] is True
    with pytest.raises(FeatureStoreError, match="a.h5: made of mirrored images .*, wanted: images as they are$"):
        FeatureStore(path).get(["2.png"])
    with pytest.raises(FeatureStoreError, match="has mirrored True, this run has False; use another file"):
        extract(find_named([str(album)]), backbone, path, workers=0, dtype="float32")
    fill(plain, range(3))
    with h5py.File(plain, "r+") as file:
        del file.attrs["mirrored"]
    assert len(FeatureStore(plain)) == 3
    with pytest.raises(FeatureStoreError, match="b.h5: made of images as they are, wanted: mirrored images .*--mir"):
        FeatureStore(plain, mirrored=True).get(["1.jpg"])
    with pytest.raises(UsageError, match="mirror is for one crop"):
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


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["captioner", *map(str, arguments)])
    try:
        return main()
    except SystemExit as left:
        return int(left.code or 0)


NETWORK = "from torch import nn\ndef net(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n"


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
    facts = json.loads(capsys.readouterr().out)
    expected = {"rows": 8, "finished": 7, "dimension": 4, "dtype": "float16", "crops": 1, "complete": False}
    assert expected.items() <= facts.items() and facts["problems"] == ["1 rows are unfinished, first broken.jpg"]
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


def test_verify_finds_a_changed_number(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "a.h5", SPEC, "w") as writer:
        for name in ("a", "b"):
            writer.add(name, np.ones(SPEC.dimension, np.float32))
    assert FeatureStore(tmp_path / "a.h5").verify() == []
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["features"][1, 0] = 2
    assert "not those that were written" in FeatureStore(tmp_path / "a.h5").verify()[0]


@pytest.mark.parametrize("name", ["ids", "features", "finished"])
def test_damage_inside_a_file_is_one_error_of_ours(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "a.h5", range(2))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file[name]
        file.create_group(name)
    with pytest.raises(FeatureStoreError, match="damaged"):
        FeatureStore(tmp_path / "a.h5").verify()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_lock_is_not_held_by_forked_children(tmp_path: Path) -> None:
    """Workers outlive a killed parent for a moment; the next run must not wait for them."""
    writer = FeatureWriter(tmp_path / "a.h5", SPEC, "w")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)  # until the parent closes its end
        os._exit(0)
    try:
        writer.close(merge=False)
        FeatureWriter(tmp_path / "a.h5", SPEC, "w").close(merge=False)
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_parts_of_another_count_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part-001-of-002.h5").touch()
    found = [Found(tmp_path / "gone.png", "gone.png")]
    report = extract(found, tiny_backbone(), tmp_path / "a.h5", workers=0)
    assert [error.reason for error in report.failed] == ["no such file"]
    assert not (tmp_path / "a.h5").exists()
    Image.new("RGB", (8, 8)).save(tmp_path / "here.png")
    with pytest.raises(UsageError, match="other parts"):
        extract([Found(tmp_path / "here.png", "here.png")], tiny_backbone(), tmp_path / "parts", part=(1, 3), workers=0)
