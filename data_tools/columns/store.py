"""Writing a file of columns: whole, sealed, and in the order of the manifest, or not at all."""

import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_scale.errors import DataError

from ..work import written_atomically
from .seal import Seal

FOLDER = "columns"
SUFFIX = ".parquet"
ROWS_PER_GROUP = 1 << 16


_NAME = re.compile(r"[a-z][a-z0-9_]*")


def columns_file(dataset: Path, name: str) -> Path:
    """Where columns of this name stand in a data set's folder.

    Raises:
        DataError: an expression could not name them.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"columns must be named by small letters, digits and _, but {name!r} is given"
        )
    return dataset / FOLDER / f"{name}{SUFFIX}"


def write_columns(
    dataset: Path, name: str, seal: Seal, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Path:
    """Write columns; any of this name that were there before are replaced at once.

    Args:
        dataset: folder of the data set.
        name: what they are called: a column ``x`` becomes ``name.x``.
        seal: of the columns.
        schema: of the batches.
        batches: rows, in the order of the manifest.

    Raises:
        DataError: there are more or fewer rows than samples.
    """
    path = columns_file(dataset, name)
    rows = 0
    with written_atomically(path) as file:
        sealed = schema.with_metadata({**(schema.metadata or {}), **seal.metadata})
        with pq.ParquetWriter(file, sealed, compression="zstd") as writer:
            for batch in batches:
                rows += batch.num_rows
                writer.write_batch(batch.cast(sealed), row_group_size=ROWS_PER_GROUP)
        if rows != seal.samples:
            raise DataError(
                f"{path}: must have a row for each of {seal.samples:,} samples, but would have "
                f"{rows:,}"
            )
    return path
