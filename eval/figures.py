"""Figures: SVG text for a report, PNG for a sweep."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captioner.metrics.significance import Estimate
from captioner.optional import require

INK, SOFT, LINE, ACCENT, OTHER = "#1c2126", "#5d6873", "#d9dee3", "#2b6ca3", "#a9b4bf"
COLORS = ("#2b6ca3", "#d0743c", "#4d8f5b", "#8a6bb0", "#b8484f", "#7a6a58", "#3f9aa6", "#c0a02c")
MARKERS = "osD^vP*X"
WIDTH = 8.2  # inches
CAPTION_PANELS = (("dev_loss", "dev loss (nats per word)"), ("cider", "dev CIDEr-D (%)"))
FEW_CLASSES = 20  # for more classes, counts in a confusion matrix are illegible
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "svg.hashsalt": "captioner",  # equal figures give equal files
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Liberation Sans", "Arial", "DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
}


def bars(found: Mapping[str, Mapping[str, Estimate]], metrics: Sequence[str]) -> str:
    """One panel for each metric, with a bar and 95 % interval for each system; the first system is gray."""
    names = list(found)
    with _style():
        figure = _figure(WIDTH, 0.75 + 0.34 * len(names))
        for panel, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
            estimates = [found[name][metric] for name in names]
            colors = [OTHER, *[ACCENT] * (len(names) - 1)]
            panel.barh(names, [e.score for e in estimates], height=0.62, color=colors)
            ends = [[e.score - e.low for e in estimates], [e.high - e.score for e in estimates]]
            panel.errorbar(
                [e.score for e in estimates],
                names,
                xerr=_positive(ends),
                fmt="none",
                ecolor=INK,
                elinewidth=1.1,
                capsize=2.5,
            )
            panel.set_title(metric)
            panel.grid(False, axis="y")
            panel.tick_params(length=0)
            panel.set_xlim(left=0)
        panel.invert_yaxis()
        figure.get_layout_engine().set(wspace=0.06)
        return _svg(figure)


def lengths(bins: Sequence[tuple[str, int]], scores: Mapping[str, Sequence[float]], metric: str) -> str:
    """A line for each system over bins of images; a bin is (label, number of images)."""
    with _style():
        figure = _figure(WIDTH, 3.6)
        panel = figure.add_subplot()
        for (name, values), color, marker in zip(scores.items(), _cycle(COLORS), _cycle(MARKERS), strict=False):
            panel.plot(range(len(bins)), values, marker=marker, color=color, label=name, markersize=5, linewidth=1.6)
        panel.set_xticks(range(len(bins)), [f"{label}\n{count} images" for label, count in bins])
        panel.set_ylabel(metric)
        panel.set_xlabel("mean length of the references, in words")
        panel.set_ylim(bottom=0)
        panel.tick_params(length=0)
        figure.legend(loc="outside right upper", fontsize=8.5)
        return _svg(figure)


def curves(
    logs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], panels: Sequence[tuple[str, str]] = CAPTION_PANELS
) -> str:
    """Two dev scores over the epochs of each system's runs; all runs of a system have its color.

    A panel is (the score's key in the log, title); the default ones are for captions.
    """
    with _style():
        figure = _figure(WIDTH, 3.4)
        for panel, (key, title) in zip(figure.subplots(1, 2), panels, strict=True):
            for (name, runs), color, marker in zip(logs.items(), _cycle(COLORS), _cycle(MARKERS), strict=False):
                for number, epochs in enumerate(runs):
                    points = [(epoch["epoch"], epoch[key]) for epoch in epochs if key in epoch]
                    label = name if number == 0 and key == panels[-1][0] else None
                    if points:
                        panel.plot(*zip(*points, strict=True), marker=marker, color=color, markersize=3.5, label=label)
            panel.set_title(title)
            panel.set_xlabel("epoch")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.tick_params(length=0)
        figure.legend(loc="outside right upper", fontsize=8.5)
        return _svg(figure)


def confusion(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    """A confusion matrix (C, C), true classes in rows: shades show shares of the row; few classes also get counts."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    few = len(classes) <= FEW_CLASSES
    side = 1.8 + (0.42 * len(classes) if few else 6.0)
    with _style():
        figure = _figure(min(side, WIDTH), min(side, WIDTH))
        panel = figure.add_subplot()
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        panel.grid(False)
        panel.set_xlabel("predicted")
        panel.set_ylabel("true")
        step = max(1, len(classes) // 40)  # few enough names to be legible
        places = range(0, len(classes), step)
        panel.set_xticks(places, classes[::step], rotation=90)
        panel.set_yticks(places, classes[::step])
        panel.tick_params(length=0, labelsize=8.5 if few else 6)
        for row, column in zip(*np.nonzero(matrix), strict=True) if few else ():
            color = "white" if shares[row, column] > 0.5 else INK
            panel.text(column, row, matrix[row, column], color=color, ha="center", va="center", fontsize=7.5)
        return _svg(figure)


def sweep(series: Mapping[str, Sequence[tuple[float, float, float]]], across: str, up: str) -> bytes:
    """A PNG with a line for each system through its points (x, y, deviation of y)."""
    with _style():
        figure = _figure(WIDTH, 4.0)
        panel = figure.add_subplot()
        for (name, points), color, marker in zip(series.items(), _cycle(COLORS), _cycle(MARKERS), strict=False):
            x, y, spread = zip(*points, strict=True)
            panel.errorbar(x, y, spread, marker=marker, color=color, label=name, linewidth=1.4, capsize=2)
        panel.set_xlabel(across)
        panel.set_ylabel(up)
        panel.tick_params(length=0)
        figure.legend(loc="outside right upper", fontsize=8.5)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": "Matplotlib"})
        return stream.getvalue()


def _style() -> Any:
    return require("matplotlib", extra="plots").rc_context(STYLE)


def _figure(width: float, height: float) -> Any:
    return require("matplotlib.figure", extra="plots").Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _positive(ends: Sequence[Sequence[float]]) -> list[list[float]]:
    """Error bars of at least 0: a score may lie outside the interval of its resamples."""
    return [[max(value, 0.0) for value in side] for side in ends]


def _cycle(values: Sequence[str]) -> list[str]:
    return list(values) * 20
