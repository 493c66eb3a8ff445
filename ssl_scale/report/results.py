"""The evaluation's figures as plain data, for JSON and CSV; `tables` lays them out for people."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_scale.probes.few_labels import Summary

_PER_CENT = {"scale": 100}
_COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "zero_shot": {"group": "zero-shot", "title": "accuracy", **_PER_CENT},
    "image_to_text/recall@1": {"group": "image to text", "title": "R@1", **_PER_CENT},
    "image_to_text/recall@5": {"group": "image to text", "title": "R@5", **_PER_CENT},
    "text_to_image/recall@1": {"group": "text to image", "title": "R@1", **_PER_CENT},
    "text_to_image/recall@5": {"group": "text to image", "title": "R@5", **_PER_CENT},
    "masked_tokens": {"group": "masked text", "title": "nats", "better": "lower", "digits": 3},
}


def describe_columns(
    rows: Mapping[str, Mapping[str, Summary]],
    probes: Sequence[str],
    labels_per_class: Sequence[int],
) -> list[dict[str, Any]]:
    """The columns that some row has a figure for, in the order of the table."""
    probed = [
        {"name": f"{probe}@{count}", "group": probe, "title": _labels(count), **_PER_CENT}
        for probe in probes
        for count in labels_per_class
    ]
    present = {name for figures in rows.values() for name in figures}
    fixed = [{"name": name, **about} for name, about in _COLUMNS.items() if name in present]
    return [*probed, *fixed]


def describe_rows(rows: Mapping[str, Mapping[str, Summary]]) -> list[dict[str, Any]]:
    """Every row with its figures: mean, spread over seeds if there are several, and values."""
    return [
        {"label": label, "cells": {name: _cell(summary) for name, summary in figures.items()}}
        for label, figures in rows.items()
    ]


def describe_differences(
    rows: Mapping[str, Mapping[str, Summary]],
    label: str,
    probes: Sequence[str],
    labels_per_class: Sequence[int],
) -> list[str]:
    """A row against each other row that has its probes' figures, seed by seed.

    Rows share the labelled samples of a seed, and few labels make the samples matter more than the
    features: so the spread of the difference tells more than the spreads of the rows.
    """
    names = [f"{probe}@{count}" for probe in probes for count in labels_per_class]
    lines = []
    for other, theirs in rows.items():
        if other == label or not all(name in theirs for name in names):
            continue
        told = []
        for name in names:
            pairs = zip(rows[label][name].values, theirs[name].values, strict=True)
            difference = Summary(tuple(100 * (mine - its) for mine, its in pairs))
            told.append(f"{name} {difference.mean:+.1f} ± {difference.spread:.1f}")
        lines.append(f"{label} minus {other}, seed by seed: {', '.join(told)}.")
    return lines


def describe_terms(num_test: int, num_seeds: int) -> list[str]:
    """What a reader must know about the figures."""
    return [
        f"Per cent of {num_test} held-out samples, unless it says nats; {num_seeds} seeds "
        "choose the labelled samples, ± is their standard deviation.",
        "k-NN on raw pixels takes cosine or Euclidean distance, whichever suits them better.",
    ]


def to_csv(result: Mapping[str, Any]) -> str:
    """One line a row; each figure is followed by its spread."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [column["name"] for column in result["columns"]]
    writer.writerow(["row", *(f"{name}{end}" for name in names for end in ("", "±"))])
    for row in result["rows"]:
        cells = [row["cells"].get(name) or {} for name in names]
        figures = [cell.get(key) for cell in cells for key in ("mean", "spread")]
        writer.writerow([row["label"], *figures])
    return buffer.getvalue()


def _labels(count: int) -> str:
    return f"{count} label" if count == 1 else f"{count} labels"


def _cell(summary: Summary) -> dict[str, Any]:
    return {
        "mean": summary.mean,
        "spread": summary.spread if len(summary.values) > 1 else None,
        "values": list(summary.values),
    }
