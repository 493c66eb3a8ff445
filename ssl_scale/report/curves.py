"""From a run's lines to its charts: what is measured under one name shares a chart."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_scale.report.charts import Chart, Series, line_chart, share_chart

_PLAIN = {"kind", "step", "attempt", "time", "source", "epoch"}
_MACHINE = {
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
    "samples_per_s": "Samples a second",
    "data_wait_share": "Share of time waiting for data",
}
_DRAWN = "samples/"
_MOST_CHARTS = 60
_WINDOWS = 30

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curves:
    """A run's charts, by what they are about."""

    losses: tuple[Chart, ...]
    measures: tuple[Chart, ...]
    machine: tuple[Chart, ...]
    mixture: Chart | None


def draw_curves(lines: Lines, resumes: Sequence[int]) -> Curves:
    """Every chart over steps.

    Args:
        lines: valid lines of metrics.jsonl.
        resumes: steps at which the run was resumed.
    """
    charts: dict[str, list[Chart]] = {"losses": [], "measures": [], "machine": []}
    for name, series in list(group_series(lines).items())[:_MOST_CHARTS]:
        group, title = _place(name)
        charts[group].append(line_chart(title, series, resumes))
    return Curves(
        losses=tuple(charts["losses"]),
        measures=tuple(charts["measures"]),
        machine=tuple(charts["machine"]),
        mixture=_draw_mixture(lines, resumes),
    )


def group_series(lines: Lines) -> dict[str, list[Series]]:
    """Figure name -> its series; training and validation of one loss stand together."""
    points: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name, value in line.items():
            if name in _PLAIN or name.startswith(_DRAWN) or isinstance(value, str | bool):
                continue
            shared, label = _split(name, line["kind"])
            points[shared][label].append((line["step"], float(value)))
    return {
        name: [_to_series(label, values) for label, values in by_label.items()]
        for name, by_label in sorted(points.items(), key=lambda item: _order(item[0]))
    }


def window_shares(lines: Lines) -> tuple[list[int], dict[str, list[float]]]:
    """How many samples each source gave in each stretch of the run.

    Returns:
        The stretches' ends, and source -> samples drawn in each stretch; training lines tell the
        samples since the line before as ``samples/<source>``.
    """
    drawn = [
        (line["step"], {name: line[name] for name in line if name.startswith(_DRAWN)})
        for line in lines
        if line["kind"] == "train"
    ]
    drawn = sorted((entry for entry in drawn if entry[1]), key=lambda entry: entry[0])
    size = max(1, math.ceil(len(drawn) / _WINDOWS))
    windows = [drawn[start : start + size] for start in range(0, len(drawn), size)]
    names = sorted({name for _, counts in drawn for name in counts})
    return (
        [window[-1][0] for window in windows],
        {
            name.removeprefix(_DRAWN): [
                float(sum(counts.get(name, 0.0) for _, counts in window)) for window in windows
            ]
            for name in names
        },
    )


def _to_series(label: str, points: list[tuple[int, float]]) -> Series:
    steps, values = zip(*sorted(points, key=lambda point: point[0]), strict=True)
    return Series(label, steps, values, noisy=label == "training")


def _draw_mixture(lines: Lines, resumes: Sequence[int]) -> Chart | None:
    steps, amounts = window_shares(lines)
    if len(steps) < 2:
        return None
    return share_chart("Share of samples by source", steps, amounts, resumes)


def _split(name: str, kind: str) -> tuple[str, str]:
    """The name that training and validation share, and what tells them apart.

    Validation figures are called ``<source>/<name in training>``.
    """
    if kind == "train":
        return name, "training"
    if kind == "validation" and "/" in name:
        source, shared = name.split("/", 1)
        return shared, f"validation, {source}"
    return name, kind


def _place(name: str) -> tuple[str, str]:
    if name in _MACHINE:
        return "machine", _MACHINE[name]
    if name.startswith("lr/"):
        return "machine", f"Learning rate, {name.removeprefix('lr/')}"
    if name == "loss":
        return "losses", "Loss, weighted sum"
    if name.startswith("loss/"):
        return "losses", name.removeprefix("loss/")
    machine = ("_ms", "_per_s", "_s", "_share", "_bytes", "_gib")
    return ("machine" if name.endswith(machine) else "measures"), name


def _order(name: str) -> tuple[int, str]:
    known = ["loss", *_MACHINE]
    return (known.index(name) if name in known else len(known), name)
