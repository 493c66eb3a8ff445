"""What the values of a column are like, in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .catalog import Catalog

MOST_VALUES = 1000
_SAMPLED = 1 << 17


@dataclass
class Summary:
    """Of a column.

    Args:
        name: of the column.
        type: of its values.
        present: how many samples have a value.
        missing: how many have none.
        least: smallest number; None of what is no number.
        greatest: largest number.
        mean: of the numbers.
        quantiles: at 5, 50 and 95 %, of every k-th number where there are many.
        values: how often each value is there; None if there are too many different ones.
    """

    name: str
    type: str
    present: int = 0
    missing: int = 0
    least: float | None = None
    greatest: float | None = None
    mean: float | None = None
    quantiles: tuple[float, ...] = ()
    values: dict[str, int] | None = field(default_factory=dict)


def summarize_columns(catalog: Catalog) -> Iterator[Summary]:
    """A summary of every column that is of the present contents."""
    every = 1 + catalog.dataset.num_samples // _SAMPLED
    for name, column in catalog.columns.items():
        if column.fault is None:
            yield _summarize(catalog, name, column.type, every)


def _summarize(catalog: Catalog, name: str, kind: pa.DataType, every: int) -> Summary:
    summary = Summary(name, str(kind))
    total, sampled = 0.0, []
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    is_category = pa.types.is_dictionary(kind) or pa.types.is_boolean(kind)
    is_category |= pa.types.is_integer(kind) or pa.types.is_string(kind)
    for batch in catalog.batches([name]):
        values = batch[name]
        summary.missing += values.null_count
        summary.present += len(values) - values.null_count
        if is_category and summary.values is not None:
            _count(summary, values)
        if is_number and values.null_count < len(values):
            numbers = pc.drop_null(values).to_numpy(zero_copy_only=False).astype(np.float64)
            ends = [float(numbers.min()), float(numbers.max())]
            summary.least = ends[0] if summary.least is None else min(summary.least, ends[0])
            summary.greatest = (
                ends[1] if summary.greatest is None else max(summary.greatest, ends[1])
            )
            total += float(numbers.sum())
            sampled.append(numbers[::every])
    if not is_category or not summary.values:
        summary.values = None
    if sampled:
        summary.mean = total / summary.present
        points = np.nanquantile(np.concatenate(sampled), [0.05, 0.5, 0.95])
        summary.quantiles = tuple(float(point) for point in points)
    return summary


def _count(summary: Summary, values: pa.Array) -> None:
    assert summary.values is not None
    for entry in pc.value_counts(pc.drop_null(values)).to_pylist():
        value = str(entry["values"])
        summary.values[value] = summary.values.get(value, 0) + entry["counts"]
        if len(summary.values) > MOST_VALUES:
            summary.values = None
            return
