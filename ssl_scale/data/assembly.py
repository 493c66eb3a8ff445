"""A batch in the making: each row is read, and decoded where it will stay."""

from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_scale.data.buffers import HEAP, Buffers
from ssl_scale.data.decoding import FieldDecoder, FixedField, UndecodableError
from ssl_scale.data.source import SampleRef, Source
from ssl_scale.data.step_batches import Cost
from ssl_scale.types import Batch, Ragged


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
        self._columns = {
            name: _FixedColumn(field, rows, buffers)
            if isinstance(field, FixedField)
            else _Column(field, rows)
            for name, field in source.fields.items()
        }

    def read(self, row: int, ref: SampleRef) -> None:
        """Put a sample into a row.

        Raises:
            UndecodableError: it does not decode; another may be put there.
        """
        cost, name = self.cost, ""
        started = perf_counter()
        members = self.source.fetch(ref)
        fetched = perf_counter()
        try:
            for name, found in members.items():
                if found is None:
                    self._columns[name].lacking.add(row)
                else:
                    self._columns[name].put(row, *found)
                    cost.read_bytes += len(found[0])
        except UndecodableError as error:
            for column in self._columns.values():
                column.lacking.discard(row)
            raise self.source.located(error, ref, name) from error
        finally:
            cost.read_ms += (fetched - started) * 1e3
            cost.decode_ms += (perf_counter() - fetched) * 1e3
        self._refs[row] = ref

    def finish(self) -> Batch:
        """The batch; padding has an empty key and seed 0.

        A field that some row lacks has ``<field>.present`` beside it, unless lengths tell.
        """
        started = perf_counter()
        source, refs = self.source, self._refs
        padding = {row for row, ref in enumerate(refs) if ref is None}
        fields: dict[str, Tensor | Ragged] = {}
        for name, column in self._columns.items():
            column.lacking |= padding
            fields[name] = values = column.finish()
            if column.lacking and isinstance(values, Tensor):
                present = [row not in column.lacking for row in range(len(refs))]
                fields[f"{name}.present"] = torch.tensor(present)
        keys = tuple(["" if ref is None else source.key(ref) for ref in refs])
        seeds = np.zeros(len(refs), dtype=np.int64)
        read = [row for row in range(len(refs)) if row not in padding]
        seeds[read] = source.seeds([ref.epoch for ref in refs if ref], [keys[row] for row in read])
        batch = Batch(source.name, fields, torch.from_numpy(seeds), keys)
        self.cost.collate_ms += (perf_counter() - started) * 1e3
        return batch


class _Column:
    """A field of a batch, collated at the end.

    Attributes:
        lacking: rows without a value.
    """

    def __init__(self, field: FieldDecoder, rows: int) -> None:
        self._field = field
        self._values: list[Any] = [None] * rows
        self.lacking: set[int] = set()

    def put(self, row: int, member: bytes, extension: str) -> None:
        self._values[row] = value = self._field.decode(member, extension)
        if value is None:
            self.lacking.add(row)

    def finish(self) -> Tensor | Ragged:
        for row in self.lacking:
            self._values[row] = self._field.missing()
        return self._field.collate(self._values)


class _FixedColumn:
    """A field of a batch whose values are decoded into it.

    Attributes:
        lacking: rows without a value.
    """

    def __init__(self, field: FixedField, rows: int, buffers: Buffers) -> None:
        self._field = field
        self._places = buffers.empty((rows, *field.shape), field.dtype)
        self.lacking: set[int] = set()

    def put(self, row: int, member: bytes, extension: str) -> None:
        self._field.decode_into(self._places[row], member, extension)

    def finish(self) -> Tensor:
        for row in self.lacking:
            self._places[row] = self._field.blank
        return torch.from_numpy(self._field.arrange(self._places))
