"""Retired names and spellings occur nowhere: code and prose use the field's terms, in US spelling."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

FOLDERS = ("captioner", "preprocess", "eval", "scripts", "benchmarks", "tests", "docs")
OTHERS = ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", ".ci/run")
RETIRED = frozenset(
    """
    How Search SearchOptions DecodeConfig SEARCHES find_search forbid_repeats no_repeat num_captions dev_beam
    Material read_material Nothing teach expect imitation_loss _aim Undrawn undrawn bridge rooted ImageCaptioner
    World_tell agree is_first Average
    Potentials NodePotentials PotentialsStore read_potentials write_potentials pass_around climb clustered unsettled
    with_truth held_out assess Assessment LearnConfig
    Rarity weighed facts Judged Side is_people leave_out SLACK _Looked
    Describer Description load_describer save_describer describe_potentials describe_video
    Record Found ENOUGH pictures picture open_picture
    """.split()
)
"""Identifiers that have better names now; words that are also plain English in other places are not listed."""
KEYS = ("embedding", "hidden", "image", "encoder", "normalise", "samples", "finetune_lr", "beam", "no_repeat")
"""Keys of configurations that have other names now."""
PROSE = re.compile(
    r"\b(?:pictures?|describers?|simulated vision|costs? (?:one|a) line|afresh|learnt|judgement"
    r"|(?:optim|normal|initial|recogn|token|random|standard|summar|organ|general|capital|quant)is(?:e|ed|es|er|ers|ing|ation)"
    r"|colou?rs?(?<!color)(?<!colors)|grey|licence[sd]?|behaviour|neighbours?|favourite|labell(?:ed|ing)|modelling)\b",
    re.IGNORECASE,
)
QUOTED = {
    "tests/test_names.py",
    "CHANGELOG.md",
    "preprocess/cooking.yaml",  # words of the corpus
    "preprocess/pseudo_captions.py",  # words of captions
}


def files(*suffixes: str) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((CHECKOUT / folder).rglob("*")):
            if path.suffix in suffixes and "fixtures" not in path.parts:
                yield path
    yield from (CHECKOUT / name for name in OTHERS if Path(name).suffix in suffixes)


def identifiers(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("id", "attr", "arg", "name"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name, getattr(node, "lineno", 0)


def test_no_retired_identifier_is_left() -> None:
    found = [
        f"{path.relative_to(CHECKOUT)}:{line}: {name}"
        for path in files(".py")
        for name, line in identifiers(path)
        if name in RETIRED
    ]
    assert not found, "\n".join(found)


def test_no_retired_word_is_left_in_prose() -> None:
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {match[0]}"
        for path in files(".py", ".md", ".yaml", ".sh", ".css", ".toml", "")
        if path.relative_to(CHECKOUT).as_posix() not in QUOTED and path.is_file()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for match in PROSE.finditer(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", sorted((CHECKOUT / "captioner/configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_retired_key_is_left(path: Path) -> None:
    keys = re.findall(r"^\s*(\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert not set(keys) & set(KEYS)


def test_the_search_itself_finds_what_it_should() -> None:
    """Would catch a pattern that never matches."""
    for text in ("a picture", "Describers", "colours", "tokeniser", "normalised", "licence", "grey", "costs one line"):
        assert PROSE.search(text), text
    for text in ("an image", "colors", "tokenizer", "raise", "noise", "gray", "license", "color"):
        assert not PROSE.search(text), text
