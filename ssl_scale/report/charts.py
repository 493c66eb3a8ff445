"""Charts as inline SVG that take their ink from the page, so they read in light and dark alike."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

# Mid tones that keep their contrast on white and on near-black; told apart by the colour-blind.
PALETTE = (
    "#3b82c4", "#e08a1e", "#2a9d6f", "#c9539b", "#8a6fd1", "#d1495b",
    "#37a6bd", "#a58a2b", "#7a8590", "#5fa83c",
)  # fmt: skip
# A colour nothing else has; replaced in the finished SVG by the page's text colour.
_INK = "#010203"
_MOST_POINTS = 600
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ssl-scale",
    # Names come from recipes and data; a dollar sign must not start a formula.
    "text.parse_math": False,
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
}


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        label: for the legend.
        x: steps.
        y: values; NaN leaves a gap.
        noisy: draw the values pale, with their running mean on top.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    noisy: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawn chart: SVG text of our own making, and its legend as (colour, label)."""

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()
    note: str = ""


def line_chart(
    title: str, series: Sequence[Series], resumes: Sequence[int] = (), note: str = ""
) -> Chart:
    """Lines over steps, with a dashed line where the run was resumed."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _over_steps(resumes)
        shown = []
        for color, line in zip(_colors(len(series)), series, strict=True):
            x, y = thin(np.asarray(line.x, float), np.asarray(line.y, float))
            if line.noisy and len(x) > 20:
                axes.plot(x, y, color=color, linewidth=0.7, alpha=0.35)
                y = running_mean(y, max(3, len(y) // 25))
            few = len(x) <= 20
            axes.plot(x, y, color=color, linewidth=1.5, marker="o" if few else None, markersize=3)
            shown.append((color, line.label))
        return Chart(title, _svg(figure), tuple(shown) if len(shown) > 1 else (), note)


def share_chart(
    title: str,
    steps: Sequence[float],
    amounts: Mapping[str, Sequence[float]],
    resumes: Sequence[int] = (),
    note: str = "",
) -> Chart:
    """Stacked shares over steps: at each step the amounts are scaled to sum to one."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _over_steps(resumes)
        stacked = np.asarray(list(amounts.values()), float)
        total = stacked.sum(0)
        shares = np.divide(stacked, total, out=np.zeros_like(stacked), where=total > 0)
        colors = _colors(len(amounts))
        axes.stackplot(steps, shares, colors=colors, linewidth=0, alpha=0.85)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter("{x:.0%}")
        return Chart(title, _svg(figure), tuple(zip(colors, amounts, strict=True)), note)


def map_chart(
    title: str,
    points: Float[np.ndarray, "samples 2"],
    labels: Int[np.ndarray, " samples"],
    names: Sequence[str],
    note: str = "",
) -> Chart:
    """Points in the plane, coloured and named by class."""
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(5.2, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axis_off()
        colors = _colors(max(len(names), 1))
        for place, name in enumerate(names):
            chosen = points[labels == place]
            if not len(chosen):
                continue
            axes.scatter(chosen[:, 0], chosen[:, 1], s=14, color=colors[place], linewidths=0)
            x, y = np.median(chosen, axis=0)
            axes.text(x, y, name[:24], ha="center", va="center", fontsize=12, weight="bold")
        legend = tuple(zip(colors, names, strict=False))
        return Chart(title, _svg(figure), legend, note)


def thin(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], most: int = _MOST_POINTS
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """At most so many points, each the mean of its stretch: a long run's page stays small."""
    if len(x) <= most:
        return x, y
    parts = np.array_split(np.arange(len(x)), most)
    return np.array([x[p].mean() for p in parts]), np.array([_mean(y[p]) for p in parts])


def running_mean(y: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """The mean of each value's neighbourhood, narrower at the ends; NaN is left out."""
    half = window // 2
    return np.array([_mean(y[max(0, i - half) : i + half + 1]) for i in range(len(y))])


def _mean(values: Float[np.ndarray, " n"]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _colors(count: int) -> list[str]:
    return [PALETTE[place % len(PALETTE)] for place in range(count)]


def _over_steps(resumes: Sequence[int]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.2, 2.5), layout="constrained")
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.02)
    for step in resumes:
        axes.axvline(step, color=_INK, alpha=0.55, linewidth=1.0, linestyle=(0, (3, 3)))
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # Without a date and a version the same run gives the same bytes.
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    opening, rest = text.split(">", 1)
    # The page sets the size; the view box keeps the shape.
    return re.sub(r' (width|height)="[^"]*"', "", opening) + ">" + rest
