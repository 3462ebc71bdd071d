"""SIGKILL at random moments: nothing finished is lost, nothing half-written is read.

Each command is killed five times; ``make kill`` does it 100 times (``--kills 100``).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from captioner.checkpoint import load_checkpoint
from captioner.errors import SearchIndexError
from captioner.features.store import FeatureStore
from captioner.search.index import Index
from captioner.train.runlog import read_log
from captioner.train.state import read_metadata
from tests import tiny
from tests.toy import make_data, write_config

CONTEXT = get_context("forkserver")  # imports torch once, for all commands
CONTEXT.set_forkserver_preload(
    ["captioner.cli.train", "captioner.cli.extract", "captioner.train.trainer", "h5py", "matplotlib.pyplot"]
)
Check = Callable[[], None]
ENCODED = "an image goes through the network\n"


def run_command(arguments: Sequence[str], log: str) -> None:
    """What a child does: one command of ``captioner``, which flushes features often and logs what it captions."""
    from captioner.cli.app import main
    from captioner.features import writer
    from captioner.predictors.lrcn import LRCNCaptioner

    writer.FLUSH_ROWS = 3
    encode = LRCNCaptioner.encode

    def logged(self: LRCNCaptioner, inputs: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        os.write(2, ENCODED.encode() * len(inputs))
        return encode(self, inputs)

    LRCNCaptioner.encode = logged  # type: ignore[method-assign]
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.argv = ["captioner", *arguments]
    sys.exit(main())


def start(arguments: Sequence[str], log: Path) -> BaseProcess:
    process = CONTEXT.Process(target=run_command, args=(arguments, str(log)))
    process.start()
    return process


def run_whole(arguments: Sequence[str], log: Path) -> float:
    """Run a command to its end; returns its seconds."""
    began = time.monotonic()
    process = start(arguments, log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    return time.monotonic() - began


def kill_often(arguments: Sequence[str], kills: int, seconds: float, log: Path, died: Check, finished: Check) -> None:
    """Start a command that takes ``seconds`` until it was killed ``kills`` times, each time at a random moment.

    ``died`` is called after each kill; ``finished``, which makes room for a new run, whenever one reaches its end.
    """
    moments = random.Random(0)
    killed = ends = 0
    while killed < kills or not ends:
        process = start(arguments, log)
        process.join(moments.uniform(0, seconds) if killed < kills else None)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            died()
        else:
            assert process.exitcode == 0, log.read_text()
            ends += 1
            finished()


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


def test_extraction(tmp_path: Path, kills: int) -> None:
    """Would catch rows that are lost, repeated, half-written or of another image."""
    images, store, log = tmp_path / "images", tmp_path / "store" / "a.h5", tmp_path / "log"
    tiny.save_images(images, 30)
    options = ["--workers", "0", "--batch-size", "2", "--dtype", "float32"]
    seconds = run_whole(["extract", str(images), "-o", str(tmp_path / "whole.h5"), *options], log)
    whole = FeatureStore(tmp_path / "whole.h5")
    before = 0

    def died() -> None:
        nonlocal before
        if before or store.exists() or any(store.parent.glob("*.parts/*.h5")):
            found = FeatureStore(store)
            names = [name for name in found.ids if name not in found.unfinished]
            assert len(set(names)) == len(names) >= before
            np.testing.assert_allclose(found.get(names), whole.get(names), atol=1e-5)
            before = len(names)

    def finished() -> None:
        nonlocal before
        died()
        assert before == len(whole.ids) and FeatureStore(store).verify() == []
        assert os.listdir(store.parent) == [store.name]
        store.unlink()
        before = 0

    kill_often(["extract", str(images), "-o", str(store), *options], kills, seconds, log, died, finished)


def test_training(tmp_path: Path, kills: int) -> None:
    """Would catch a state or checkpoint that is half-written, and a resumed run that ends elsewhere."""
    data, log = make_data(tmp_path / "data"), tmp_path / "log"
    settings = {"train__save_minutes": 0, "train__log_every": 1, "train__ema": 0.9, "model__dropout": 0.3}
    folders = tmp_path / "whole", tmp_path / "killed"
    whole, run = ("train", str(write_config(data, folders[0], **settings))), folders[1]
    seconds = run_whole(whole, log)
    wanted = load_file(folders[0] / "best.safetensors")
    before = 0

    def died() -> None:
        nonlocal before
        for name in ("best", "last"):
            if (run / f"{name}.safetensors").exists():
                load_checkpoint(run / f"{name}.safetensors")
        if before or (run / "state.safetensors").exists():
            step = int(read_metadata(run / "state.safetensors")["position"]["step"])
            assert step >= before
            before = step

    def finished() -> None:
        nonlocal before
        found = load_file(run / "best.safetensors")
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
        ends = [[r["cider"] for r in read_log(one / "log.jsonl") if r["kind"] == "epoch"] for one in folders]
        assert ends[0] == ends[1]
        shutil.rmtree(run)
        before = 0

    kill_often(["train", str(write_config(data, run, **settings))], kills, seconds, log, died, finished)


def test_captions_of_many_images(tmp_path: Path, kills: int) -> None:
    """Would catch captions that a kill loses or that are made again, and a results file that is half-written."""
    model, log = tiny.save_tiny(tmp_path / "tiny.safetensors"), tmp_path / "log"
    images, results, partial = tmp_path / "images", tmp_path / "results.json", tmp_path / "results.json.partial"
    tiny.save_images(images, 30)
    command = ["caption", str(images), "--model", str(model), "--batch-size", "2", "-o", str(results)]
    seconds = run_whole(command, log)
    whole = json.loads(results.read_text())
    assert len(whole) == 30
    log.write_bytes(b"")
    before: list[str] = []
    deaths, written = 0, results.stat().st_mtime_ns

    def died() -> None:
        nonlocal before, deaths
        deaths += 1
        assert json.loads(results.read_text()) == whole
        if before and not partial.exists():  # killed after the end of its work
            finished()
            return
        lines = partial.read_text().splitlines(keepends=True)[1:] if partial.exists() else []
        found = [line for line in lines if line.endswith("\n")]
        assert found[: len(before)] == before
        names = [Path(json.loads(line)["image"]).name for line in found]
        captions = [json.loads(line)["captions"][0][0] for line in found]
        assert [dict(image_id=n, caption=c) for n, c in zip(names, captions, strict=True)] == whole[: len(found)]
        before = found

    def finished() -> None:
        nonlocal before, deaths, written
        assert json.loads(results.read_text()) == whole and results.stat().st_mtime_ns > written
        assert sorted(path.name for path in tmp_path.glob("results*")) == ["results.json"]
        assert log.read_text().count(ENCODED) <= 30 + 2 * deaths  # a kill costs what was being captioned: a batch
        log.write_bytes(b"")
        before, deaths, written = [], 0, results.stat().st_mtime_ns

    kill_often(command, kills, seconds, log, died, finished)


def test_indexing(tmp_path: Path, kills: int) -> None:
    """Would catch images that a kill loses from the index, or that get the vector or caption of another one."""
    model, log = tiny.save_tiny(tmp_path / "tiny.safetensors"), tmp_path / "log"
    images, place = tmp_path / "images", tmp_path / "index"
    tiny.save_images(images, 30)
    command = ["index", str(images), "--model", str(model), "--batch-size", "2", "--index"]
    seconds = run_whole([*command, str(tmp_path / "whole")], log)
    with Index(tmp_path / "whole") as index:
        entries = index.page(0, 100)
        whole = {one.path: (one.caption, vector) for one, vector in zip(entries, index.vectors(entries), strict=True)}
    before = 0

    def died() -> None:
        nonlocal before
        try:
            index = Index(place)
        except SearchIndexError as error:
            assert before == 0 and "no index here" in str(error), "killed before there was an index"
            return
        with index:
            entries = index.page(0, 100)
            assert before <= len(index) == len(entries)
            for entry, vector in zip(entries, index.vectors(entries), strict=True):
                assert entry.caption == whole[entry.path][0]
                np.testing.assert_allclose(vector, whole[entry.path][1], atol=1e-3)
            before = len(index)

    def finished() -> None:
        nonlocal before
        with Index(place) as index:
            assert len(index) == 30 and sorted(index.settings()) == ["generation", "model"]
        shutil.rmtree(place)
        before = 0

    kill_often([*command, str(place)], kills, seconds, log, died, finished)
