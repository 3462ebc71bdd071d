"""What a report is about: training runs and results files, as captions of the same images, in groups of like runs."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioner.data.records import Record
from captioner.data.results import match, read_results
from captioner.errors import CheckpointError, DataError, UsageError
from captioner.features.label_predictions import open_store
from captioner.features.spec import Store
from captioner.files import write_text
from captioner.predictors.lrcn import Captioner
from captioner.train.runlog import read_log

MEMBER = re.compile(r"(.+)-(seed|caption)(\d+)")
"""Names of results files that are one system several times: ``2u-seed0.json``, ``human-caption1.json``."""


@dataclass(frozen=True)
class Run:
    """One caption of every image."""

    name: str
    """Of the system."""
    label: str
    """Which run of the system it is: ``seed 0``, ``caption 2``; empty of a single one."""
    captions: dict[str, str]
    """By the records' ids, in their order."""
    command: str
    """What makes the captions, where that is known."""
    group: str = ""
    """All of its configuration but seed and folder: equal groups are one system."""
    log: tuple[dict[str, Any], ...] = ()
    """The epochs of its training, as ``log.jsonl`` has them."""
    backbones: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    """Where it comes from: file or checkpoint, digest, commit."""


@dataclass(frozen=True)
class Choice:
    """How runs are captioned; None leaves a thing as the checkpoint has it."""

    split: str
    root: str | None = None
    features: Sequence[str] | None = None
    search: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``captioner.predictors.lrcn.Search``."""
    keep: Path | None = None
    """Folder for captions that were found, so that a second report need not find them again."""


def read_file(path: Path, records: Sequence[Record], missing: str = "error") -> Run:
    """Captions of ``records`` from a results file; ``missing`` as ``captioner.data.results.match`` has it."""
    matched = match(read_results(path), records, missing)
    for note in matched.notes:
        print(f"note: {note}", file=sys.stderr)
    member = MEMBER.fullmatch(path.stem)
    name, label = (member[1], f"{member[2]} {member[3]}") if member else (path.stem, "")
    facts = {"file": str(path), **({"note": "; ".join(matched.notes)} if matched.notes else {})}
    return Run(name, label, matched.hypotheses, "", f"{path.parent}/{name}", facts=facts)


def read_run(path: Path, captioner: Captioner, records: Sequence[Record], choice: Choice) -> Run:
    """Captions of ``records`` by a trained model from its feature stores, and what is known about its training."""
    data = captioner.data_set
    if data is None:
        raise CheckpointError(f"{path} does not say what it was trained on; give the captions it made instead")
    stores = [str(store) for store in choice.features or data.features]
    experiment = dict(captioner.checkpoint.extra.get("experiment", {}))
    train = dict(experiment.get("train", {}))
    seed = train.pop("seed", 0)
    group = [experiment.get("name"), experiment.get("model"), experiment.get("data"), train]
    folder = path if path.is_dir() else path.parent
    log = folder / "log.jsonl"
    return Run(
        str(experiment.get("name", folder.name)),
        f"seed {seed}",
        _captions(captioner, records, stores, choice),
        _command(path, stores, choice),
        json.dumps(group, sort_keys=True),
        tuple(line for line in read_log(log) if line["kind"] == "epoch") if log.is_file() else (),
        tuple(spec.key for spec in captioner.checkpoint.backbones),
        {"checkpoint": str(path), "sha256": captioner.checkpoint.digest, **_commit(captioner)},
    )


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Systems by name, in the order of their first runs; different systems of one name are told apart by number."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    for members in groups.values():
        labels = Counter(run.label for run in members)
        twice = next((label for label, count in labels.items() if count > 1), None)
        if twice is not None:
            raise UsageError(f"{members[0].name}: two runs with {twice or 'the same name'}; give each run once")
    names = Counter(members[0].name for members in groups.values())
    found: dict[str, list[Run]] = {}
    for members in groups.values():
        name = members[0].name
        if names[name] > 1:
            name = f"{name} ({sum(other.startswith(f'{name} (') for other in found) + 1})"
        found[name] = members
    return found


def is_people(runs: Sequence[Run], records: Sequence[Record]) -> bool:
    """Whether every caption is, word for word, a reference of its own image."""
    own = {record.image_id: {text.strip() for text in record.captions} for record in records}
    return all(caption in own[image] for run in runs for image, caption in run.captions.items())


def without(records: Sequence[Record], captions: Mapping[str, str]) -> dict[str, list[str]]:
    """References by image without the one that ``captions`` repeats; ``DataError`` where none is left."""
    found = {}
    for record in records:
        kept = [text.strip() for text in record.captions]
        kept.remove(captions[record.image_id])
        if not kept:
            raise DataError(f"{record.image_id} has a single reference; people cannot be held against each other there")
        found[record.image_id] = kept
    return found


def _captions(captioner: Captioner, records: Sequence[Record], stores: Sequence[str], choice: Choice) -> dict[str, str]:
    opened = [open_store(store) for store in stores]
    ids = [record.image_id for record in records]
    kept = _kept(captioner, opened, ids, choice)
    if kept is not None and kept.is_file():
        return match(read_results(kept), records, "empty").hypotheses  # a model may say nothing at all
    print(f"captioning {len(ids)} images with {captioner.name}", file=sys.stderr)
    captions = {}
    for result in captioner.caption_features(opened, ids, **choice.search):
        if result.error is not None:
            raise DataError(f"{result.error}; extract it, or name other stores with --features")
        captions[str(result.image)] = result.captions[0].text
    if kept is not None:
        entries = [{"image_id": image, "caption": caption} for image, caption in captions.items()]
        write_text(kept, json.dumps(entries, indent=0) + "\n")
    return captions


def _kept(captioner: Captioner, stores: Sequence[Store], ids: Sequence[str], choice: Choice) -> Path | None:
    """The file for these captions: its name changes with all that could change them."""
    if choice.keep is None:
        return None
    made_by = [captioner.checkpoint.digest, [store.summary() for store in stores], ids, dict(choice.search)]
    key = hashlib.sha256(json.dumps(made_by, default=str, sort_keys=True).encode()).hexdigest()[:12]
    return choice.keep / f"{Path(captioner.name).stem}-{choice.split}-{key}.json"


def _command(path: Path, stores: Sequence[str], choice: Choice) -> str:
    words = ["captioner", "caption", "--model", str(path)]
    for store in stores:
        words += ["--features", store]
    for name, value in choice.search.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    if choice.root:
        words += ["--data", choice.root]
    return shlex.join([*words, "--split", choice.split, "-o", f"{path.stem}.json"])


def _commit(captioner: Captioner) -> dict[str, str]:
    commit = captioner.checkpoint.provenance.get("commit")
    return {"commit": commit} if commit else {}
