"""Making a selection: a column that says who is kept, and one with the reason for all others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_scale.errors import DataError

from ..columns.catalog import BATCH_ROWS, Catalog
from .draw import draw, ticket
from .expression import Expression

KEPT = "kept"
REASON = "reason"
SCHEMA = pa.schema(
    [
        pa.field(KEPT, pa.bool_(), nullable=False),
        pa.field(REASON, pa.dictionary(pa.int16(), pa.string())),
    ]
)
NOT_DRAWN = "not drawn"
VERSION = 1


@dataclass(frozen=True)
class Wish:
    """What is to be kept.

    Args:
        expression: that samples must meet; None for all.
        dropped_keys: of samples that must go whatever they are, and why.
        size: how many to draw of the others; None for all.
        balance: a column whose values shall be drawn from alike.
        seed: of the draw.
    """

    expression: Expression | None
    dropped_keys: "DropList | None" = None
    size: int | None = None
    balance: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class DropList:
    """Keys of samples that must go, as after a takedown notice.

    Args:
        file: where they stand, a line each.
        keys: those.
    """

    file: str
    keys: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> "DropList":
        """Read a file of keys.

        Raises:
            DataError: it is no UTF-8 text.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: must be a text with a key a line, but: {error}") from error
        return cls(str(path), tuple(line.strip() for line in lines if line.strip()))


@dataclass(frozen=True)
class Selection:
    """Who is kept.

    Args:
        codes: of each sample: 0 if it is kept, else 1 + the place of its reason.
        reasons: in words.
    """

    codes: NDArray[np.int16]
    reasons: tuple[str, ...]

    @property
    def num_kept(self) -> int:
        """How many are kept."""
        return int((self.codes == 0).sum())

    def counts(self) -> dict[str, int]:
        """Reason -> how many were dropped for it."""
        found = np.bincount(self.codes, minlength=1 + len(self.reasons))[1:]
        return dict(zip(self.reasons, found.tolist(), strict=True))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its columns, see `SCHEMA`."""
        for start in range(0, len(self.codes), BATCH_ROWS):
            codes = self.codes[start : start + BATCH_ROWS]
            kept = codes == 0
            reason = pa.DictionaryArray.from_arrays(
                pa.array(codes - 1, pa.int16(), mask=kept), pa.array(self.reasons, pa.string())
            )
            yield pa.record_batch([pa.array(kept), reason], schema=SCHEMA)


def select(catalog: Catalog, wish: Wish) -> Selection:
    """Decide about every sample of a data set.

    Memory: 2 bytes a sample, and 16 for each that may be drawn.

    Raises:
        DataError: a column is not there or not fit.
    """
    expression = wish.expression
    conditions = expression.conditions if expression else ()
    reasons = [f"not: {condition.text}" for condition in conditions]
    named = expression.columns if expression else ()
    dropped = wish.dropped_keys
    if dropped:
        reasons.append(f"listed in {dropped.file}")
    codes = np.zeros(catalog.dataset.num_samples, np.int16)
    start = 0
    names = [*named, *(["key"] if dropped and "key" not in named else [])]
    for batch in catalog.batches(names or ["key"]):
        part = codes[start : start + batch.num_rows]
        if dropped:  # first of all reasons, since it is the one that must be on record
            listed = pc.is_in(batch["key"], value_set=pa.array(dropped.keys, pa.string()))
            part[_true(listed)] = len(reasons)
        for number, condition in enumerate(conditions, 1):
            part[(part == 0) & ~_true(condition.check(batch))] = number
        start += batch.num_rows
    if wish.size is not None:
        reasons.append(NOT_DRAWN)
        codes[_not_drawn(catalog, wish, wish.size, codes == 0)] = len(reasons)
    return Selection(codes, tuple(reasons))


def _true(values: pa.Array) -> NDArray[np.bool_]:
    met: NDArray[np.bool_] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return met


def _not_drawn(
    catalog: Catalog, wish: Wish, size: int, left: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Rows that are left, but not drawn."""
    names = ["sha256", *([wish.balance] if wish.balance else [])]
    tickets: list[NDArray[np.uint64]] = []
    values: list[pa.Array] = []
    start = 0
    for batch in catalog.batches(names):
        mask = pa.array(left[start : start + batch.num_rows])
        start += batch.num_rows
        tickets.append(ticket(batch["sha256"].filter(mask), wish.seed))
        if wish.balance:
            values.append(batch[wish.balance].filter(mask))
    groups = _number(values) if wish.balance else None
    drawn = draw(np.concatenate(tickets), size, groups)
    rows: NDArray[np.int64] = np.flatnonzero(left)[~drawn]
    return rows


def _number(values: Sequence[pa.Array]) -> NDArray[np.int64]:
    """Equal numbers for equal values; missing ones are a group of their own."""
    encoded = pa.chunked_array(values).dictionary_encode(null_encoding="encode").combine_chunks()
    numbers: NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)
    return numbers
