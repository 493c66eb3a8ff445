"""One sample of a data set, by its key."""

import difflib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ssl_scale.errors import DataError

from .catalog import Catalog


def find_sample(catalog: Catalog, key: str) -> dict[str, Any]:
    """All columns of a sample, those that are of other contents left out.

    Raises:
        DataError: there is none of this key; names those that are most like it.
    """
    row = _find_row(catalog, key)
    sound = [name for name, column in catalog.columns.items() if column.fault is None]
    start = 0
    for batch in catalog.batches(sound):
        if row < start + batch.num_rows:
            [found] = batch.slice(row - start, 1).to_pylist()
            return {"row": row, **found}
        start += batch.num_rows
    raise AssertionError("the key's row lies in one of the batches")


def _find_row(catalog: Catalog, key: str) -> int:
    start = 0
    near: list[str] = []
    for batch in catalog.batches(["key"]):
        place = pc.index(batch["key"], pa.scalar(key)).as_py()
        if place >= 0:
            return int(start + place)
        start += batch.num_rows
        alike = pc.match_substring(batch["key"], key[-8:])
        near += batch["key"].filter(alike).slice(0, 20).to_pylist()
    close = difflib.get_close_matches(key, near, n=3, cutoff=0.3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise DataError(f"{catalog.dataset.folder}: there is no sample {key!r}{hint}")
