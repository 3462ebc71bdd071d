"""The systems of a report: training runs and results files as captions of the same images, grouped by configuration."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioner.config import to_mapping
from captioner.data.records import Captioned
from captioner.data.results import match, read_results
from captioner.errors import DataError, UsageError, print_error
from captioner.features.label_predictions import open_store
from captioner.features.spec import Store
from captioner.files import write_text
from captioner.predictors import load
from captioner.predictors.features import FeatureCaptioner
from captioner.train.runlog import read_log

RUN_NAME = re.compile(r"(.+)-(seed|caption)(\d+)")
"""Names of results files that may be runs of one system: ``2u-seed0.json``, ``human-caption1.json``."""


@dataclass(frozen=True)
class Run:
    """One caption of every image."""

    name: str
    """Name of the system."""
    label: str
    """Which run of the system it is: ``seed 0``, ``caption 2``; empty if it is the only one."""
    captions: dict[str, str]
    """Captions by the records' ids, in the records' order."""
    command: str
    """The command that writes the captions, if it is known."""
    group: str = ""
    """The configuration without seed and folder: runs with equal ones are one system."""
    log: tuple[dict[str, Any], ...] = ()
    """The epochs of its training, from ``log.jsonl``."""
    backbones: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    """Provenance: file or checkpoint, digest, commit."""


@dataclass(frozen=True)
class CaptionOptions:
    """Options for captioning by runs; None takes the checkpoint's value."""

    split: str
    root: str | None = None
    features: Sequence[str] | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``DecodingConfig``."""
    cache: Path | None = None
    """Folder that keeps the captions for later reports."""


def read_file(path: Path, records: Sequence[Captioned], missing: str = "error") -> Run:
    """Captions of ``records`` from a results file; ``missing`` as ``captioner.data.results.match`` has it."""
    matched = match(read_results(path), records, missing)
    for note in matched.notes:
        print_error(f"note: {note}")
    member = RUN_NAME.fullmatch(path.stem)
    name, label = (member[1], f"{member[2]} {member[3]}") if member else (path.stem, "")
    metadata = {"file": str(path), **({"note": "; ".join(matched.notes)} if matched.notes else {})}
    return Run(name, label, matched.hypotheses, "", f"{path.parent}/{name}", metadata=metadata)


def load_captioner(path: Path, device: str = "cpu") -> FeatureCaptioner:
    """The captioner of a run or checkpoint; raises ``UsageError`` if it does not caption stored features."""
    captioner = load(path, device, "torch")
    if not isinstance(captioner, FeatureCaptioner):
        raise UsageError(f"{path} does not caption stored features; give a file of its captions instead")
    return captioner


def read_run(path: Path, captioner: FeatureCaptioner, records: Sequence[Captioned], options: CaptionOptions) -> Run:
    """Caption ``records`` by a trained model from its feature stores; the result has the log of its training."""
    stores = [str(store) for store in options.features or captioner.checkpoint.config.data.features]
    checkpoint = captioner.checkpoint
    train = dict(checkpoint.extra.get("train", {}))
    seed = train.pop("seed", 0)
    name = str(checkpoint.extra.get("name", ""))
    group = [name, checkpoint.task, to_mapping(checkpoint.config), train]
    folder = path if path.is_dir() else path.parent
    log = folder / "log.jsonl"
    return Run(
        name or folder.name,
        f"seed {seed}",
        _captions(captioner, records, stores, options),
        _command(path, stores, options),
        json.dumps(group, sort_keys=True),
        tuple(line for line in read_log(log) if line["kind"] == "epoch") if log.is_file() else (),
        tuple(spec.key for spec in checkpoint.inputs),
        {"checkpoint": str(path), "sha256": checkpoint.digest, **_commit(captioner)},
    )


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Systems by name, in the order of their first runs; different systems with the same name are numbered."""
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


def is_human(runs: Sequence[Run], records: Sequence[Captioned]) -> bool:
    """Whether every caption is, word for word, a reference of its own image."""
    own = {record.image_id: {text.strip() for text in record.captions} for record in records}
    return all(caption in own[image] for run in runs for image, caption in run.captions.items())


def leave_one_out(records: Sequence[Captioned], captions: Mapping[str, str]) -> dict[str, list[str]]:
    """References by image without the one that ``captions`` repeats; raises ``DataError`` if none is left."""
    found = {}
    for record in records:
        others = [text.strip() for text in record.captions]
        others.remove(captions[record.image_id])
        if not others:
            raise DataError(
                f"{record.image_id} has a single reference; humans cannot be compared with each other there"
            )
        found[record.image_id] = others
    return found


def _captions(
    captioner: FeatureCaptioner, records: Sequence[Captioned], stores: Sequence[str], options: CaptionOptions
) -> dict[str, str]:
    opened = [open_store(store) for store in stores]
    ids = [record.image_id for record in records]
    cached = _cached(captioner, opened, ids, options)
    if cached is not None and cached.is_file():
        return match(read_results(cached), records, "empty").hypotheses  # a model's caption may be empty
    print_error(f"captioning {len(ids)} images with {captioner.name}")
    captions = {}
    for result in captioner.caption_features(opened, ids, **options.decoding):
        if result.error is not None:
            raise DataError(f"{result.error}; extract it, or name other stores with --features")
        captions[str(result.image)] = result.captions[0].text
    if cached is not None:
        entries = [{"image_id": image, "caption": caption} for image, caption in captions.items()]
        write_text(cached, json.dumps(entries, indent=0) + "\n")
    return captions


def _cached(
    captioner: FeatureCaptioner, stores: Sequence[Store], ids: Sequence[str], options: CaptionOptions
) -> Path | None:
    """The cache file for these captions: its name depends on everything that could change them."""
    if options.cache is None:
        return None
    inputs = [captioner.checkpoint.digest, [store.summary() for store in stores], ids, dict(options.decoding)]
    key = hashlib.sha256(json.dumps(inputs, default=str, sort_keys=True).encode()).hexdigest()[:12]
    return options.cache / f"{Path(captioner.name).stem}-{options.split}-{key}.json"


def _command(path: Path, stores: Sequence[str], options: CaptionOptions) -> str:
    words = ["captioner", "caption", "--model", str(path)]
    for store in stores:
        words += ["--features", store]
    for name, value in options.decoding.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    if options.root:
        words += ["--data", options.root]
    return shlex.join([*words, "--split", options.split, "-o", f"{path.stem}.json"])


def _commit(captioner: FeatureCaptioner) -> dict[str, str]:
    commit = captioner.checkpoint.provenance.get("commit")
    return {"commit": commit} if commit else {}
