"""Numbers that pages repeat agree with the table they come from; differences in prose, with the rows they are of."""

from __future__ import annotations

import csv
import re
from itertools import pairwise

import pytest

from eval.published import read_tables
from tests.conftest import CHECKOUT

ROUNDING = 0.1 + 1e-9
"""How far the difference of two rounded numbers, of one decimal, may be from the rounded difference."""
MODELS = ("4f, distilled from three 2u", "4f", "2u", "2f", "1u")

Rows = dict[str, dict[str, str]]


def text(page: str) -> str:
    """A page as one line."""
    return " ".join((CHECKOUT / page).read_text(encoding="utf-8").split())


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def table(page: str, *headings: str, section: str = "") -> Rows:
    """The only table with these ``headings`` in a page, or in a section of it: cells by heading, by row name."""
    content = (CHECKOUT / page).read_text(encoding="utf-8")
    if section:
        [_, content] = re.split(rf"^#+ {section}$", content, flags=re.MULTILINE)
        content = re.split(r"^#+ ", content, flags=re.MULTILINE)[0]
    lines = content.splitlines()
    starts = [
        number
        for number, (line, rule) in enumerate(pairwise(lines))
        if re.fullmatch(r"[|: -]*-[|: -]*", rule) and set(headings) <= set(cells(line))
    ]
    assert len(starts) == 1, f"{page}: {len(starts)} tables with {headings}"
    header, found = cells(lines[starts[0]]), {}
    header = [f"{name} 2" if name in header[:place] else name for place, name in enumerate(header)]
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        found[plain(cells(line)[0])] = dict(zip(header, cells(line), strict=True))
    return found


def plain(name: str) -> str:
    """A row's name without its seeds: ``4f, seeds 0, 1, 2`` is ``4f``."""
    return re.sub(r", seeds? [\d, ]+$", "", name).replace("the three", "three")


def score(cell: str) -> str:
    """``▼ 22.5 ± 0.1 [21.4, 23.7]`` without mark and interval."""
    return re.sub(r"▼|\[.*?\]", "", cell).strip()


def number(cell: str) -> float:
    """The first number of a cell."""
    match = re.search(r"[-−+]?\d+(\.\d+)?", cell)
    assert match, cell
    return float(match[0].replace("−", "-"))


def said(page: str, pattern: str) -> list[float]:
    """The numbers that the groups of ``pattern`` match in a page."""
    match = re.search(pattern, text(page))
    assert match, f"{page}: no {pattern}"
    return [float(group.replace("−", "-")) for group in match.groups()]


def models() -> Rows:
    return table("docs/results.md", "Model", "BLEU-1", "CIDEr-D")


def results() -> Rows:
    return table("docs/results.md", "System", "BLEU-1", section="Scores")


def against_distilled() -> Rows:
    return table("docs/results.md", "Against 4f, distilled", "BLEU-4")


def test_the_readme_has_rows_of_the_whole_table() -> None:
    shown = table("README.md", "Model", "BLEU-1", "CIDEr-D")
    for name, row in shown.items():
        there = models()[name]
        assert all(row[column] == there[column] for column in row if column.startswith(("BLEU", "CIDEr")))


def test_the_readme_has_the_default_models_scores_on_coco() -> None:
    row = table("docs/default-model.md", "BLEU-1", "ROUGE-L", section="Scores")["COCO dev, 150 photographs"]
    assert said("README.md", r"scores ([\d.]+) BLEU-4 and ([\d.]+) CIDEr-D") == [
        number(row["BLEU-4"]), number(row["CIDEr-D"])
    ]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_runs_have_the_same_scores_on_every_page(model: str) -> None:
    here, there = models()[model], results()[model]
    assert [here[name] for name in ("BLEU-1", "BLEU-4", "CIDEr-D")] == [
        score(there[name]) for name in ("BLEU-1", "BLEU-4", "CIDEr-D")
    ]
    training = table("docs/experiments/flickr8k.md", "Run", "test BLEU-4")[model]
    assert [here["BLEU-4"], here["CIDEr-D"]] == [training["test BLEU-4"], training["test CIDEr-D"]]


def test_the_default_model_has_the_scores_of_its_page() -> None:
    scores = table("docs/default-model.md", "BLEU-1", "ROUGE-L", section="Scores")
    for name in ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr-D"):
        assert models()["default model"][name] == scores["Flickr8k test"][name]


def test_the_default_models_page_has_its_captions() -> None:
    """Would catch a page that shows what an earlier model said of the examples."""
    page = text("docs/default-model.md")
    for line in (CHECKOUT / "examples" / "captions.tsv").read_text().splitlines():
        assert f"| {line.split(chr(9))[1]} |" in page


@pytest.mark.parametrize(
    ("row", "system"),
    [
        ("Karpathy & Fei-Fei 2015", "Karpathy & Fei-Fei"),
        ("Vinyals et al. 2015 (NIC)", "Google NIC (Vinyals et al. 2015)"),
        ("Xu et al. 2015, soft attention", "Soft attention"),
        ("Xu et al. 2015, hard attention", "Hard attention"),
    ],
)
def test_papers_have_the_scores_that_eval_published_holds(row: str, system: str) -> None:
    [found] = [one for paper in read_tables("flickr8k") for one in paper.rows if one.system == system]
    for name, value in found.values.items():
        assert (number(models()[row][name]) if models()[row][name] else None) == value


@pytest.mark.parametrize("other", MODELS[1:])
def test_differences_are_those_of_the_scores(other: str) -> None:
    for name in ("BLEU-4", "CIDEr-D"):
        gap = number(score(results()[other][name])) - number(score(results()[MODELS[0]][name]))
        assert number(against_distilled()[other][name]) == pytest.approx(gap, abs=ROUNDING)


def test_prose_says_what_teachers_bring_as_the_table_does() -> None:
    """Would catch the README's 1.0 (p = 0.016) where the table had 0.8 (p = 0.015)."""
    row = against_distilled()["4f"]
    bleu, cider = -number(row["BLEU-4"]), -number(row["CIDEr-D"])
    p_bleu, p_cider = number(row["p"]), number(row["p 2"])
    assert said("docs/results.md", r"a 4f gains ([\d.]+)\s+BLEU-4 \(p = ([\d.]+)\)") == [bleu, p_bleu]
    raised = r"raise 4f by ([\d.]+) BLEU-4 \(p = ([\d.]+)\) and ([\d.]+) CIDEr-D"
    assert said("docs/experiments/flickr8k.md", raised) == [bleu, p_bleu, cider]
    [printed] = said("docs/experiments/flickr8k.md", r"[\d.]+ CIDEr-D \(p = ([\d.]+)\) on test")
    assert printed == pytest.approx(p_cider, abs=0.005)


def test_prose_says_how_4f_and_2u_differ_as_the_table_does() -> None:
    rows = table("docs/experiments/flickr8k.md", "Run", "test BLEU-4")
    bleu, p_bleu, cider, p_cider = said(
        "docs/experiments/flickr8k.md", r"BLEU-4 ([\d.]+) apart, p = ([\d.]+); CIDEr-D ([\d.]+) apart, p = ([\d.]+)"
    )
    assert said("docs/results.md", r"\(p = ([\d.]+) for BLEU-4,\s+([\d.]+) for CIDEr-D\)") == [p_bleu, p_cider]
    for gap, name in ((bleu, "test BLEU-4"), (cider, "test CIDEr-D")):
        assert abs(number(rows["4f"][name]) - number(rows["2u"][name])) == pytest.approx(gap, abs=ROUNDING)
    [ahead] = said("docs/experiments/flickr8k.md", r"2u is ahead by ([\d.]+) CIDEr-D")
    assert number(rows["2u"]["dev CIDEr-D"]) - number(rows["4f"]["dev CIDEr-D"]) == pytest.approx(ahead, abs=ROUNDING)


def test_neighbors_reach_the_share_that_prose_says() -> None:
    [share] = said("docs/results.md", r"It is (\d+) % of the best model's CIDEr-D")
    best = max(number(score(results()[model]["CIDEr-D"])) for model in MODELS)
    neighbors = number(score(results()["30 nearest neighbors, their consensus"]["CIDEr-D"]))
    assert share == pytest.approx(100 * neighbors / best, abs=0.6)


def test_tools_differ_by_what_the_rows_say() -> None:
    rows = table("docs/scores.md", "how", "BLEU-4 differs by")
    first = number(next(iter(rows.values()))["BLEU-4"])
    for row in rows.values():
        assert number(row["BLEU-4"]) - first == pytest.approx(number(row["BLEU-4 differs by"]), abs=0.0101)


def test_the_order_of_tacos_systems_follows_from_their_scores() -> None:
    scores = table("docs/tacos.md", "System", "Published")
    names = {"(a)": "(a) encoder-decoder, max", "(b)": "(b) decoder, max", "(c)": "(c) decoder, prob"}
    for kind in ("max", "prob"):
        names |= {f"SMT {kind}": f"SMT, {kind}", f"SMT {kind}, not tuned": f"SMT, {kind}, not tuned for BLEU-4"}
    orders = table("docs/tacos.md", "The paper's order, controls")
    assert len(orders) == 8
    for order, row in orders.items():
        one, other = (scores[names[name]] for name in order.split(" over "))
        for ratio in ("0.04", "**0.08**", "0.16", "0.4"):
            gap = row[ratio].strip("*").partition(",")[0]
            assert number(gap) == pytest.approx(number(one[ratio]) - number(other[ratio]), abs=ROUNDING)


@pytest.mark.parametrize(
    ("ratio", "benchmarks"),
    [
        ("extraction", ["extraction over bare resnet50, 2 workers", "extraction over bare compact, 2 workers"]),
        ("default backbone", ["extraction over bare default, 2 workers"]),
        ("training, tokens/s", ["training over bare 4f of 384, bfloat16"]),
        ("captions/s: beam of 5 / greedy", ["beam 5 over greedy, batches of 16"]),
        ("captions/s: beam of 5 / a beam", ["beam 5 over naive beam", "beam 5 over re-running beam"]),
        ("wall time", ["captioner caption over import torch"]),
        ("images/s from files", ["captions over the CNN alone, from files"]),
        ("captions/s from files", ["captions by ONNX Runtime over torch, from files"]),
        ("peak memory: captions of 1,500", ["memory of 1500 captions over 500"]),
        ("peak memory: caption of one", ["memory of one caption over 200 MB"]),
        ("tokenizing", ["tokens of captions over nltk's"]),
        ("scoring 5,000", ["scoring 5,000 captions over pycocoevalcap"]),
        ("memory for a caption", ["memory of a caption among 5,000 over pycocoevalcap"]),
        ("training of a clip captioner", ["training over bare 2u of 256, bfloat16"]),
        ("time for 10,000 digits", ["10,000 digits by LeNet over 10 s"]),
        ("local response normalization", ["local response norm over torch's"]),
        ("CRF inference", ["CRF inference over a loop, complete graph", "CRF inference over a loop, tree"]),
    ],
)
def test_speed_ratios_were_measured(ratio: str, benchmarks: list[str]) -> None:
    """Each figure of the page is a recorded one, rounded."""
    [row] = [
        row
        for name, row in table("docs/benchmarks.md", "Ratio", "Measured", section="Against ourselves").items()
        if name.startswith(ratio)
    ]
    printed = re.findall(r"(?<![\w-])\d+\.\d+", row["Measured"])
    with (CHECKOUT / "benchmarks" / "results.csv").open(newline="", encoding="utf-8") as file:
        recorded = list(csv.DictReader(file))
    assert len(printed) == len(benchmarks)
    for figure, benchmark in zip(printed, benchmarks, strict=True):
        ratios = [float(one["ratio"]) for one in recorded if one["benchmark"] == benchmark]
        assert any(abs(float(figure) - one) <= 0.5 * 10 ** -len(figure.partition(".")[2]) + 1e-9 for one in ratios)
