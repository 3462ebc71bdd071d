"""``captioner models``, and published models behind ``captioner caption``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
