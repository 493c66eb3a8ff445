"""A batch in the making: each row is read, and decoded where it will stay."""

from time import perf_counter

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
                self._columns[name].put(row, found)
        except UndecodableError as error:
            raise self.source.located(error, ref, name) from error
        finally:
            cost.read_ms += (fetched - started) * 1e3
            cost.decode_ms += (perf_counter() - fetched) * 1e3
            cost.read_bytes += sum([len(found[0]) for found in members.values() if found])
        self._refs[row] = ref

    def finish(self) -> Batch:
        """The batch; padding has an empty key and seed 0.

        A field that some row lacks has ``<field>.present`` beside it, unless lengths tell.
        """
        started = perf_counter()
        fields: dict[str, Tensor | Ragged] = {}
        is_read = [ref is not None for ref in self._refs]
        for name, column in self._columns.items():
            present = [a and b for a, b in zip(column.present, is_read, strict=True)]
            fields[name] = values = column.finish(present)
            if isinstance(values, Tensor) and not all(present):
                fields[f"{name}.present"] = torch.tensor(present)
        keys = tuple("" if ref is None else self.source.key(ref) for ref in self._refs)
        seeds = np.zeros(len(keys), dtype=np.int64)
        read = [ref for ref in self._refs if ref is not None]
        seeds[is_read] = self.source.seeds([ref.epoch for ref in read], list(filter(None, keys)))
        batch = Batch(self.source.name, fields, torch.from_numpy(seeds), keys)
        self.cost.collate_ms += (perf_counter() - started) * 1e3
        return batch


class _Column:
    """A field of a batch, collated at the end."""

    def __init__(self, field: FieldDecoder, rows: int) -> None:
        self._field, self._values = field, [None] * rows
        self.present = [False] * rows

    def put(self, row: int, found: tuple[bytes, str] | None) -> None:
        self.present[row] = found is not None
        if found is not None:
            self._values[row] = self._field.decode(*found)

    def finish(self, present: list[bool]) -> Tensor | Ragged:
        return self._field.collate(
            [
                value if is_there else self._field.missing()
                for value, is_there in zip(self._values, present, strict=True)
            ]
        )


class _FixedColumn:
    """A field of a batch whose values are decoded into it."""

    def __init__(self, field: FixedField, rows: int, buffers: Buffers) -> None:
        self._field = field
        self._places = buffers.empty((rows, *field.shape), field.dtype)
        self.present = [False] * rows

    def put(self, row: int, found: tuple[bytes, str] | None) -> None:
        self.present[row] = found is not None
        if found is not None:
            self._field.decode_into(self._places[row], *found)

    def finish(self, present: list[bool]) -> Tensor:
        for row, is_there in enumerate(present):
            if not is_there:
                self._places[row] = self._field.blank
        return torch.from_numpy(self._field.arrange(self._places))
