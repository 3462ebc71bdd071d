"""Read captions and references from files, and match them by image.

``captioner score``, ``captioner compare`` and the reports all use this module. A mismatch is an error, or a choice that
is part of the scores' signature; nothing is left out silently.

Results are COCO results JSON, our own JSON lines (``captioner caption --json``), ``image<TAB>caption`` lines (as
``captioner caption`` prints them), or plain text with one caption per line. References are a data set in any format of
``READERS``, JSON lines or ``image<TAB>caption`` lines without the image files, or, for plain results, one or several
text files with the references of line n in line n; a line may hold several, separated by tabs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.data import READERS, read_dataset
from captioner.data.readers.own import HEADER
from captioner.data.records import (
    SPLIT_NAMES,
    Captioned,
    in_other_capitals,
    of_split,
    parse_json,
    read_json,
    read_lines,
    same_name,
    split_name,
)
from captioner.errors import DataError, UsageError

MISSING = ("error", "skip", "empty")
_MOJIBAKE = re.compile("\ufffd|[ÃÂ][\u0080-\u00bf]|â€")
"""Characters that are typical of text read in a wrong encoding."""


@dataclass(frozen=True)
class Results:
    """One system's captions by image; None for null in the file."""

    path: Path
    captions: dict[str, str | None]
    aligned: bool = False
    """Whether the file has plain lines without image names; the keys are then line numbers from 1."""


@dataclass(frozen=True)
class Matched:
    """Captions and references of the same images, by the references' ids and in their order."""

    hypotheses: dict[str, str]
    references: dict[str, tuple[str, ...]]
    notes: list[str] = field(default_factory=list)
    """Warnings to print with the scores, one sentence each."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Part of the scores' signatures: the split, and the numbers of images left out or counted as empty."""


@dataclass(frozen=True)
class _Row:
    where: str
    image: str
    caption: str | None
    split: str = ""


def read_results(path: Path) -> Results:
    """Read the captions of a file in any of the forms above; ``DataError`` names the entry that is wrong."""
    form = _form(path)
    if form == "plain":
        lines = read_lines(path)
        return _not_empty(Results(path, {str(n): line.strip() for n, line in enumerate(lines, start=1)}, aligned=True))
    captions: dict[str, str | None] = {}
    for row in _rows(path, form):
        if row.image in captions:
            raise DataError(
                f"{row.where}: a second caption for {row.image}; keep one per image (or are these the references?)"
            )
        captions[row.image] = None if row.caption is None else row.caption.strip()
    return _not_empty(Results(path, captions))


def read_references(paths: Sequence[Path], data_format: str = "", aligned: bool = False) -> list[Captioned]:
    """The images of all splits that have references; ``aligned``: those of plain results, by line number."""
    if not paths:
        raise UsageError("no references; name them with --references")
    if aligned and not data_format:
        return _read_aligned(paths)
    if len(paths) > 1:
        raise UsageError(
            f"several reference files ({', '.join(path.name for path in paths)}) are for results with "
            "one caption per line; give one file or folder"
        )
    if aligned:
        raise UsageError(
            "results without image names need text files with one reference per line, not a data set; write "
            "image<TAB>caption lines instead"
        )
    [path] = paths
    records = read_dataset(data_format, path) if data_format else _read_guessed(path)
    found = [record for record in records if record.captions]
    if not found:
        raise DataError(f"{path}: no image has a reference caption")
    return found


def read_systems(
    paths: Sequence[Path],
    references: Sequence[Path],
    data_format: str = "",
    split: str = "",
    missing: str = "error",
    warn: Callable[[str], None] = lambda note: None,
) -> tuple[list[Matched], list[Captioned]]:
    """Match each results file with the references of ``split`` (all if empty); also returns those of all splits.

    ``warn`` is called once with every note; the options are those of ``read_references`` and ``match``.
    """
    results = [read_results(path) for path in paths]
    records = read_references(references, data_format, results[0].aligned)
    chosen = of_split(records, split) if split else records
    matched = [match(one, chosen, missing) for one in results]
    for note in dict.fromkeys(note for one in matched for note in one.notes):
        warn(note)
    return matched, records


def same_images(matched: Sequence[Matched]) -> Matched:
    """The first of ``matched``; raises ``UsageError`` unless all have the same images."""
    first = matched[0]
    if any(one.references.keys() != first.references.keys() for one in matched):
        raise UsageError(
            "the systems have captions of different images; --missing empty counts missing captions as empty"
        )
    return first


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """The references of a file, of all splits, by image."""
    return {record.image_id: record.captions for record in read_references([path])}


def read_training_captions(path: Path | None, records: Sequence[Captioned], split: str) -> list[str]:
    """The training captions in ``path``, or else those of ``records``, unless their train split is scored (``split``,
    all splits if empty)."""
    if path is not None:
        return [text for one in read_references([path]) if one.split in ("train", "") for text in one.captions]
    if not split or split_name(split, "--split") == "train":
        return []
    return [text for record in records if record.split == "train" for text in record.captions]


def match(results: Results, references: Sequence[Captioned], missing: str = "error") -> Matched:
    """Match captions and references by image; both must have the same images.

    A caption belongs to the image with its number, id, file name, or file name without suffix. If an image has no
    caption, or null, ``missing`` decides: ``"error"`` raises ``DataError``, ``"empty"`` counts an empty caption,
    ``"skip"`` leaves the image out. Captions of unknown images are an error too, except with ``"skip"``. An empty
    string is a caption; a note gives the number of such captions.
    """
    if missing not in MISSING:
        raise UsageError(f"--missing {missing}: choose one of {', '.join(MISSING)}")
    found, unknown = _assign(results, references)
    absent = [record.image_id for record in references if found.get(record.image_id) is None]
    _check(results, references, unknown, absent, missing)
    notes: list[str] = []
    metadata: dict[str, str] = {}
    if unknown:
        notes.append(f"{_some(unknown, len(results.captions), 'captions')} have no references and are left out")
        metadata["unknown"] = f"skip-{len(unknown)}"
    if absent:
        fate = "are left out" if missing == "skip" else "count as empty captions"
        notes.append(f"{_some(absent, len(references), 'images')} have no caption and {fate}")
        metadata["missing"] = f"{missing}-{len(absent)}"
    left_out = set(absent) if missing == "skip" else set()
    kept = [record for record in references if record.image_id not in left_out]
    hypotheses = {record.image_id: found.get(record.image_id) or "" for record in kept}
    empty = [image for image, caption in found.items() if caption == ""]
    if empty:
        notes.append(f"{_some(empty, len(references), 'images')} have an empty caption")
        metadata["empty"] = str(len(empty))
    notes += _suspicions(results, hypotheses, kept)
    named = sorted({record.split for record in kept if record.split})
    splits = {"split": "+".join(named)} if named else {}
    return Matched(hypotheses, {record.image_id: record.captions for record in kept}, notes, splits | metadata)


def _not_empty(results: Results) -> Results:
    if not any(results.captions.values()):
        raise DataError(f"{results.path}: holds no captions" + (" but empty ones" if results.captions else ""))
    return results


def _form(path: Path) -> str:
    """json, jsonl, tsv or plain, from the suffix and the content of the file."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the file with the captions")
    if path.suffix in (".json", ".jsonl", ".tsv"):
        return path.suffix[1:]
    lines = [line for line in read_lines(path) if line.strip()]
    if lines and path.suffix != ".txt" and lines[0].lstrip()[0] in "[{":
        return "jsonl" if lines[0].lstrip()[0] == "{" else "json"
    return "tsv" if lines and all("\t" in line for line in lines) else "plain"


def _rows(path: Path, form: str) -> Iterator[_Row]:
    readers: dict[str, Callable[[Path], Iterator[_Row]]] = {"json": _coco, "jsonl": _json_lines, "tsv": _tabbed}
    return readers[form](path)


def _coco(path: Path) -> Iterator[_Row]:
    entries = read_json(path)
    if isinstance(entries, dict) and ("annotations" in entries or "images" in entries):
        raise DataError(f"{path}: holds references, not results; are results and references exchanged?")
    if not isinstance(entries, list):
        raise DataError(f'{path}: expected a list of {{"image_id": ..., "caption": ...}}')
    for index, entry in enumerate(entries):
        yield from _entry(f"{path}, entry {index}", entry)


def _json_lines(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        yield from _entry(where, parse_json(line, where))


def _entry(where: str, entry: Any) -> Iterator[_Row]:
    """The captions of one object: ``image`` or ``image_id`` with ``caption``, or a list of ``captions``."""
    entry = entry if isinstance(entry, dict) else {}
    image = entry.get("image_id", entry.get("image"))
    captions = entry["captions"] if isinstance(entry.get("captions"), list) else [entry.get("caption", 0)]
    named = isinstance(image, int | str) and not isinstance(image, bool) and image != ""
    if not named or not all(text is None or isinstance(text, str) for text in captions):
        of = f" (of {image})" if named else ""
        raise DataError(f"{where}{of}: needs image_id or image (a number or name) and caption (a text)")
    for text in captions:
        yield _Row(where, str(image), text, str(entry.get("split") or ""))


def _tabbed(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(read_lines(path), start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not line.strip() or (number == 1 and cells[0].lower() in HEADER):
            continue
        where = f"{path}, line {number}"
        if len(cells) not in (2, 3) or not cells[0] or (len(cells) == 3 and cells[2].lower() not in SPLIT_NAMES):
            raise DataError(f"{where}: expected image<TAB>caption and optionally <TAB>train, val or test")
        yield _Row(where, *cells)


def _read_guessed(path: Path) -> list[Captioned]:
    """The format of a references file, from its suffix and first keys."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name its format with --format: {', '.join(READERS)}")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    form = _form(path)
    if form == "plain":
        raise DataError(f"{path}: has no image names, but the results do; write image<TAB>caption lines")
    if form != "json":
        return _group(_rows(path, form))
    content = read_json(path)
    if isinstance(content, dict) and "annotations" in content:
        return read_dataset("coco", path)
    if isinstance(content, dict) and "images" in content:
        return read_dataset("karpathy", path)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "image_id" in content[0]:
        raise DataError(f"{path}: holds results, not references; are results and references exchanged?")
    raise DataError(f"{path}: neither COCO annotations nor a Karpathy dataset_*.json; name its format with --format")


def _group(rows: Iterator[_Row]) -> list[Captioned]:
    """Records of rows, in the order in which images first appear."""
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for row in rows:
        image = same_name(row.image)
        held = captions.setdefault(image, [])
        if row.caption and row.caption.strip():
            held.append(row.caption.strip())
        split = SPLIT_NAMES.get(row.split.lower(), row.split)
        if splits.setdefault(image, split) != split:
            raise DataError(f"{row.where}: {image} is in {split or 'no split'} here, in {splits[image]} above")
    return [Captioned(image, None, tuple(texts), splits[image]) for image, texts in captions.items()]


def _read_aligned(paths: Sequence[Path]) -> list[Captioned]:
    """References of plain results: line n of each file, or the cells of line n."""
    tables = [_lines(path) for path in paths]
    counts = {path.name: len(table) for path, table in zip(paths, tables, strict=True)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"reference files with different numbers of lines: {listed}; line n of each is for image n")
    rows = [[text for cells in line for text in cells if text] for line in zip(*tables, strict=True)]
    return [Captioned(str(n), None, tuple(texts), "") for n, texts in enumerate(rows, start=1) if texts]


def _lines(path: Path) -> list[list[str]]:
    if path.is_dir() or path.suffix in (".json", ".jsonl"):
        raise DataError(f"{path}: results without image names need text files with one reference per line")
    table = [[cell.strip() for cell in line.split("\t")] for line in read_lines(path)]
    if table and all(len(cells) == 2 and re.fullmatch(r"\S+\.\w{3,4}(#\d)?|\d+", cells[0]) for cells in table):
        raise DataError(f"{path}: has image names, but the results have none; write image<TAB>caption lines there")
    return table


def _assign(results: Results, references: Sequence[Captioned]) -> tuple[dict[str, str | None], list[str]]:
    """Captions by the ids of ``references``, and the keys that match none of them."""
    if results.aligned:
        _check_lines(results, references)
    known = _names(references)
    found: dict[str, str | None] = {}
    unknown = []
    for key, caption in results.captions.items():
        name = same_name(key)
        image = known.get(name) or known.get(PurePosixPath(name).name)
        if image is None:
            unknown.append(key)
        elif image in found:
            raise DataError(f"{results.path}: two captions are of the image {image}; keep one")
        else:
            found[image] = caption
    return found, unknown


def _names(references: Sequence[Captioned]) -> dict[str, str | None]:
    """All names of the images, the best kind of name first; None for a name that two images share."""
    tiers: list[Callable[[Captioned], str]] = [
        lambda record: "" if record.number is None else str(record.number),
        lambda record: record.image_id,
        lambda record: PurePosixPath(record.image_id).name,
        lambda record: PurePosixPath(record.image_id).stem,
    ]
    known: dict[str, str | None] = {"": None}
    for tier in tiers:
        names = [(same_name(tier(record)), record.image_id) for record in references]
        counts = Counter(name for name, _ in names)
        known = {name: image if counts[name] == 1 else None for name, image in names} | known
    return known


def _check_lines(results: Results, references: Sequence[Captioned]) -> None:
    lines, there = len(results.captions), max((int(record.image_id) for record in references), default=0)
    if lines == there:
        return
    more, fewer = max(lines, there), min(lines, there)
    hint = f", {more // fewer} times as many: write one file per reference, not all of an image in a row" if (
        there > lines > 0 and more % fewer == 0
    ) else ""  # fmt: skip
    raise DataError(f"{results.path}: {lines} captions, but references for {there} lines{hint}")


def _check(
    results: Results, references: Sequence[Captioned], unknown: Sequence[str], absent: Sequence[str], missing: str
) -> None:
    """Raise an error for mismatches that ``missing`` does not allow."""
    alike = in_other_capitals(unknown[0], (record.image_id for record in references)) if unknown else None
    hint = f"did you mean {alike}, as capitals count" if alike else ""
    if len(unknown) == len(results.captions):
        raise DataError(
            f"no result has references: results are of images such as {unknown[0]}, references of "
            f"{references[0].image_id}; {hint or 'is it the right data set and split'}?"
        )
    if unknown and missing != "skip":
        raise DataError(
            f"{results.path}: {_some(unknown, len(results.captions), 'captions')} have no references; "
            f"{hint or 'is it the right --split'}? --missing skip leaves them out"
        )
    if absent and missing == "error":
        null = sum(caption is None for caption in results.captions.values())
        raise DataError(
            f"{results.path}: {_some(absent, len(references), 'images')} have no caption"
            + (f" ({null} are null)" if null else "")
            + "; is it the right --split? --missing empty counts them as empty captions, --missing skip leaves them out"
        )


def _suspicions(results: Results, hypotheses: dict[str, str], references: Sequence[Captioned]) -> list[str]:
    """Notes on what is allowed but probably a mistake."""
    notes = []
    if all(len(record.captions) == 1 for record in references):
        notes.append("there is one reference an image: scores are far below those with the usual five")
    texts = [*hypotheses.values(), *(text for record in references for text in record.captions)]
    wrong = next((text for text in texts if _MOJIBAKE.search(text)), None)
    if wrong is not None:
        notes.append(f"text that was read in a wrong encoding, such as {wrong[:60]!r}; save the files as UTF-8")
    if len(hypotheses) > 1 and len(set(hypotheses.values())) == 1:
        notes.append(f"all captions of {results.path} are the same")
    return notes


def _some(names: Sequence[str], total: int, what: str) -> str:
    return f"{len(names)} of {total} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
