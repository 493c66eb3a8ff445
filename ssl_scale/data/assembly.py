"""A batch in the making: samples are read, and decoded where they will stay."""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from ssl_scale.data.buffers import HEAP, Buffers
from ssl_scale.data.columns import CollatedColumn, Column, FixedColumn
from ssl_scale.data.decoding import FixedField, UndecodableError
from ssl_scale.data.open_shard import Members
from ssl_scale.data.reader import SHARD_READER
from ssl_scale.data.source import SampleRef, Source
from ssl_scale.data.step_batches import Cost
from ssl_scale.types import Batch, Ragged

# Of a batch, so many bytes are read before they are decoded.
_READ_BYTES = 1 << 20


class Assembly:
    """Rows of one source; one that is never read is padding: it lacks every field.

    Args:
        source: of all rows.
        rows: how many there are.
        buffers: where their arrays are made.
        cost: what it takes is added here.
    """

    def __init__(
        self, source: Source, rows: int, buffers: Buffers = HEAP, cost: Cost | None = None
    ) -> None:
        self.source, self.cost = source, Cost() if cost is None else cost
        self._refs: list[SampleRef | None] = [None] * rows
        self._columns: dict[str, Column] = {
            name: FixedColumn(field, rows, buffers)
            if isinstance(field, FixedField)
            else CollatedColumn(field, rows)
            for name, field in source.fields.items()
        }

    def read(self, row: int, ref: SampleRef) -> None:
        """Put a sample into a row.

        Raises:
            UndecodableError: it does not decode; another may be put there.
        """
        for error in self.fill([ref], row).values():
            raise error

    def fill(self, refs: Sequence[SampleRef], first: int = 0) -> dict[int, UndecodableError]:
        """Put samples into the rows from `first` on.

        Some are read and then decoded field by field: a processor that does one thing many times
        over does it faster.

        Returns:
            The rows whose samples do not decode, and why; others may be put there.
        """
        self._refs[first : first + len(refs)] = refs
        failures: dict[int, UndecodableError] = {}
        end = first + len(refs)
        while first < end:
            read = self._read_some(refs, len(refs) - (end - first))
            started = perf_counter()
            for name, column in self._columns.items():
                for row, error in column.fill([members[name] for members in read], first).items():
                    failures.setdefault(row, self._located(error, row, name))
            self.cost.decode_ms += (perf_counter() - started) * 1e3
            first += len(read)
        for row in failures:
            self._clear(row)
        return dict(sorted(failures.items()))

    def _read_some(self, refs: Sequence[SampleRef], start: int) -> list[Members]:
        """The members of some of the samples."""
        started, already = perf_counter(), SHARD_READER.bytes_read
        read: list[Members] = []
        while start + len(read) < len(refs) and SHARD_READER.bytes_read - already < _READ_BYTES:
            read += self.source.fetch_some(refs, start + len(read))
        self.cost.read_bytes += SHARD_READER.bytes_read - already
        self.cost.read_ms += (perf_counter() - started) * 1e3
        return read

    def _located(self, error: UndecodableError, row: int, field: str) -> UndecodableError:
        ref = self._refs[row]
        assert ref is not None
        located = self.source.located(error, ref, field)
        located.__cause__ = error
        return located

    def _clear(self, row: int) -> None:
        self._refs[row] = None
        for column in self._columns.values():
            column.lacking.discard(row)

    def finish(self) -> Batch:
        """The batch; padding has an empty key and seed 0.

        A field that some row lacks has ``<field>.present`` beside it, unless lengths tell.
        """
        started = perf_counter()
        source, refs = self.source, self._refs
        rows = [row for row, ref in enumerate(refs) if ref is not None]
        padding = set(range(len(refs))).difference(rows)
        fields: dict[str, Tensor | Ragged] = {}
        for name, column in self._columns.items():
            column.lacking |= padding
            fields[name] = values = column.finish()
            if column.lacking and isinstance(values, Tensor):
                present = [row not in column.lacking for row in range(len(refs))]
                fields[f"{name}.present"] = torch.tensor(present)
        read = [ref for ref in refs if ref is not None]
        read_keys = source.keys(read)
        keys, seeds = [""] * len(refs), np.zeros(len(refs), dtype=np.int64)
        for row, key in zip(rows, read_keys, strict=True):
            keys[row] = key
        seeds[rows] = source.seeds([ref.epoch for ref in read], read_keys)
        batch = Batch(source.name, fields, torch.from_numpy(seeds), tuple(keys))
        self.cost.collate_ms += (perf_counter() - started) * 1e3
        return batch
