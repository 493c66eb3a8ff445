"""The columns that tell of duplicates."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..columns.catalog import BATCH_ROWS

SCHEMA = pa.schema(
    [
        pa.field("is_duplicate", pa.bool_(), nullable=False),
        # The row of the sample that represents it; its own, if it stays.
        pa.field("group", pa.int64(), nullable=False),
        pa.field("copies", pa.int32(), nullable=False),
        # Where it also is, if that alone makes it a duplicate.
        pa.field("found_in", pa.dictionary(pa.int16(), pa.string())),
    ]
)


def column_batches(
    group: NDArray[np.int64], found_in: NDArray[np.int16], names: list[str]
) -> Iterator[pa.RecordBatch]:
    """The columns, in the order of the manifest.

    Args:
        group: [N] the row that represents each sample.
        found_in: [N] 1 + the place in `names` of the data set that has it too; 0 for none.
        names: of other data sets.
    """
    copies = np.bincount(group, minlength=len(group))
    for start in range(0, len(group), BATCH_ROWS):
        rows = slice(start, start + BATCH_ROWS)
        elsewhere = found_in[rows]
        own = np.arange(start, start + len(elsewhere))
        where = pa.DictionaryArray.from_arrays(
            pa.array(elsewhere - 1, pa.int16(), mask=elsewhere == 0), pa.array(names, pa.string())
        )
        yield pa.record_batch(
            [
                pa.array((group[rows] != own) | (elsewhere > 0)),
                pa.array(group[rows]),
                pa.array(copies[group[rows]].astype(np.int32)),
                where,
            ],
            schema=SCHEMA,
        )
