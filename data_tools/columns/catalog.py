"""All that is known of a data set's samples: the manifest and the columns that tools have added."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_scale.data.index import Dataset, read_dataset
from ssl_scale.errors import DataError

from ..dataset import MANIFEST
from .seal import Seal
from .store import FOLDER, SUFFIX

BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Column:
    """A column, and where it stands.

    Args:
        file: a Parquet file.
        name: in that file.
        type: of its values.
        fault: why it cannot be used; None if it can.
    """

    file: Path
    name: str
    type: pa.DataType
    fault: str | None = None


@dataclass(frozen=True)
class Catalog:
    """The columns of a data set.

    Args:
        dataset: whose they are.
        columns: by name: those of the manifest as they are, a tool's as ``name.column``.
        seals: of the files of tools, by their names.
    """

    dataset: Dataset
    columns: Mapping[str, Column]
    seals: Mapping[str, Seal]

    @classmethod
    def open(cls, folder: Path) -> "Catalog":
        """Look at what columns there are.

        Raises:
            DataError: there is no data set, or a file is damaged.
        """
        dataset = read_dataset(folder)
        manifest = folder / MANIFEST
        schema, rows = _look_at(manifest)
        if rows != dataset.num_samples:
            raise DataError(
                f"{manifest}: must have a row for each of {dataset.num_samples:,} samples, but has "
                f"{rows:,}; make it again: ssl-data index {folder}"
            )
        columns = {field.name: Column(manifest, field.name, field.type) for field in schema}
        seals = {}
        for path in sorted((folder / FOLDER).glob(f"*{SUFFIX}")):
            schema, rows = _look_at(path)
            seal = seals[path.stem] = Seal.read(str(path), schema.metadata)
            fault = _find_fault(path, seal, rows, dataset)
            for field in schema:
                name = f"{path.stem}.{field.name}"
                columns[name] = Column(path, field.name, field.type, fault)
        return cls(dataset, columns, seals)

    def resolve(self, name: str) -> str:
        """The full name of a column: a tool's may be given without the tool's where that is clear.

        Raises:
            DataError: there is none, there are several, or it is of other contents.
        """
        found = [name] if name in self.columns else []
        found = found or [full for full in self.columns if full.endswith(f".{name}")]
        if len(found) == 1:
            if fault := self.columns[found[0]].fault:
                raise DataError(fault)
            return found[0]
        folder = self.dataset.folder
        if found:
            raise DataError(f"{folder}: {name!r} must be one column, but may be {_list(found)}")
        near = difflib.get_close_matches(name, self.columns, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {_list(self.columns)}"
        raise DataError(f"{folder}: there is no column {name!r}; {hint}")

    def batches(self, names: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Rows in the order of the manifest, of several files side by side.

        Args:
            names: of the columns, as they are to be called in the batches.
            rows: of a batch; the last has fewer.
        """
        of_file: dict[Path, list[str]] = {}
        columns = [self.columns[self.resolve(name)] for name in names]
        for column in columns:
            of_file.setdefault(column.file, []).append(column.name)
        files = {file: number for number, file in enumerate(of_file)}
        readers = [_in_batches(file, list(dict.fromkeys(of_file[file])), rows) for file in files]
        for parts in zip(*readers, strict=True):
            values = [parts[files[column.file]][column.name] for column in columns]
            yield pa.record_batch(values, names=list(names))

    def read(self, names: Sequence[str]) -> pa.Table:
        """All rows of some columns, in memory."""
        types = [self.columns[self.resolve(name)].type for name in names]
        schema = pa.schema(list(zip(names, types, strict=True)))
        return pa.Table.from_batches(self.batches(names), schema=schema)


def _look_at(path: Path) -> tuple[pa.Schema, int]:
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except FileNotFoundError:
        raise DataError(
            f"{path}: must list the samples, but is not there; make it: ssl-data index "
            f"{path.parent}"
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: must be Parquet, but is damaged ({error})") from error


def _find_fault(path: Path, seal: Seal, rows: int, dataset: Dataset) -> str | None:
    if seal.dataset == dataset.fingerprint and rows == seal.samples == dataset.num_samples:
        return None
    return (
        f"{path}: must be of the present contents, {dataset.num_samples:,} samples, but was made "
        f"of others, {rows:,}; make it again with ssl-data {seal.tool}"
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _in_batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of exactly so many rows: Parquet's own end with its row groups."""
    held: list[pa.RecordBatch] = []
    count = 0
    with pq.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
            held.append(batch)
            count += batch.num_rows
            while count >= rows:
                table = pa.Table.from_batches(held).combine_chunks()
                yield _as_batch(table.slice(0, rows))
                held = table.slice(rows).to_batches()
                count -= rows
    if count:
        yield _as_batch(pa.Table.from_batches(held))


def _as_batch(table: pa.Table) -> pa.RecordBatch:
    [batch] = table.combine_chunks().to_batches()
    return batch
