"""``captioner models``, and published models behind ``captioner caption``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from captioner import load
from captioner.errors import SearchIndexError
from captioner.hub import hub_cache
from captioner.predictors.pretrained import ALIASES
from tests import tiny
from tests.conftest import Run


def test_models_are_listed(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a model that is said to be here because its download began."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    blobs = hub_cache() / "models--Salesforce--blip-image-captioning-base" / "blobs"
    assert blobs.is_relative_to(tmp_path)
    blobs.mkdir(parents=True)
    (blobs / "digest").write_bytes(b"x" * 100)
    (blobs / "digest2.incomplete").write_bytes(b"x" * 1000)
    listed = [json.loads(line) for line in cli("models", "--json")[1]]
    assert [one["model"] for one in listed] == list(ALIASES)
    assert [one["bytes_on_disk"] for one in listed if one["bytes_on_disk"]] == [100]
    head, own, *others = cli("models")[1]
    assert head.startswith("model ") and own.startswith("default ")
    assert [line.split()[0] for line in others] == list(ALIASES)


def test_listing_models_loads_nothing_heavy() -> None:
    program = (
        "import sys; from captioner.cli.app import app\n"
        "try: app(['models'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_published_model_captions_a_folder(cli: Run, tmp_path: Path) -> None:
    """The whole way of ``hf:``: files, batches, parts, JSON, and results that are resumed."""
    pytest.importorskip("transformers", reason="needs the extra transformers")
    from captioner.hub import model_folder
    from captioner.predictors.generate import quiet
    from tests.pretrained import save_tiny

    with quiet():
        save_tiny("blip", model_folder("someone/blip"))
    photos = tiny.save_images(tmp_path / "photos", 5)
    common = ("caption", "--model", "hf:someone/blip", "--max-length", "6", tmp_path / "photos")
    lines = cli(*common)[1]
    assert [line.split("\t")[0] for line in lines] == [str(path) for path in photos]
    records = [json.loads(line) for line in cli(*common, "--json")[1]]
    assert [f"{one['image']}\t{one['caption']}" for one in records] == lines
    assert all(one["model"] == "hf:someone/blip" and one["log_prob"] < 0 for one in records)
    parts = [cli(*common, "--part", f"{i}/2")[1] for i in (1, 2)]
    assert parts == [lines[::2], lines[1::2]]
    assert cli(*common, "-o", tmp_path / "results.json")[0] == 0
    written = json.loads((tmp_path / "results.json").read_text())
    assert [one["caption"] for one in written] == [one["caption"] for one in records]
    prompted = cli(*common, "--prompt", "a man")[1]
    assert all(line.split("\t")[1].startswith("a man") for line in prompted)


def test_a_published_model_captions_an_index_a_page_and_a_video(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch features or sentences that are asked of a model without any, and captions of another model."""
    pytest.importorskip("transformers", reason="needs the extra transformers")
    pytest.importorskip("starlette", reason="needs the extra web")
    pytest.importorskip("av", reason="needs the extra video")
    from captioner.predictors.generate import quiet
    from captioner.search.index import Index
    from captioner.web.app import Settings, create_app
    from tests.pretrained import save_tiny
    from tests.videos import plain, save_video
    from tests.web.test_app import open_client

    monkeypatch.setenv("CAPTIONER_INDEX", str(tmp_path / "index"))
    monkeypatch.chdir(tmp_path)
    with quiet():
        save_tiny("blip", Path("blip"))
    photos = tiny.save_images(tmp_path / "photos", 4)
    status, (line,), _ = cli("index", tmp_path / "photos", "--model", "./blip", "--prompt", "a man")
    assert (status, line) == (0, f"4 added; 4 images in {tmp_path / 'index'}")
    captions = load("./blip", prompt="a man").caption(photos)
    with Index(tmp_path / "index") as index:
        entries = {entry.path: entry for entry in index.page(0, 10)}
        assert [entries[str(path)].caption for path in photos] == captions
        assert (index.model.name, index.model.embedder, index.model.dimension) == ("./blip", "default", 1280)
        assert all(len(entry.classes) == 5 and (entry.log_prob or 0) < 0 for entry in entries.values())
    assert [line.split("\t")[1] for line in cli("search", photos[1], "--top", 3)[1]] != [str(photos[1])]
    assert len(cli("search", captions[0])[1]) == 4, "they share a word"
    status, _, err = cli("index", tmp_path / "photos", "--model", "./blip")
    assert status == 1 and "made by ./blip" in err[0], "another prompt is another captioner"
    assert cli("index", tmp_path / "photos", "--model", "./blip", "--prompt", "a man")[1][0].startswith("4 unchanged")
    with open_client(load("./blip", prompt="a man"), Settings(tmp_path / "index")) as client:
        answer = client.post("/api/caption", files={"image": photos[2].read_bytes()}).json()
        assert answer["captions"][0]["text"] == captions[2] and answer["model"] == "./blip"
        assert len(answer["classes"]) == 5 and answer["similar"][0]["why"] == "the same file"
        page = client.post("/caption", files={"image": photos[2].read_bytes()}).text
        assert captions[2] in page and "probabilities as whole sentences" in page and "feature maps" in page
        assert client.get("/api/search", params={"q": captions[0]}).json()["results"]
        film = save_video(tmp_path / "a.mp4", [(1000 * i, plain("red")) for i in range(3)]).read_bytes()
        (clip,) = client.post("/api/video", files={"video": film}).json()["clips"]
        assert clip["caption"].startswith("a man") and clip["model"] == "./blip"
    with pytest.raises(SearchIndexError, match="made by"):
        create_app(load(), Settings(tmp_path / "index"))
