"""A field of a batch in the making."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_scale.data.buffers import Buffers
from ssl_scale.data.decoding import FieldDecoder, FixedField, UndecodableError
from ssl_scale.types import Ragged


class Column(ABC):
    """One field's values, a row for each sample.

    Attributes:
        lacking: rows without a value.
    """

    def __init__(self) -> None:
        self.lacking: set[int] = set()

    def fill(
        self, members: Sequence[tuple[bytes, str] | None], first: int
    ) -> dict[int, UndecodableError]:
        """Decode members into the rows from `first` on; returns the rows of those that do not."""
        failures = {}
        for row, found in enumerate(members, first):
            if found is None:
                self.lacking.add(row)
                continue
            try:
                self._put(row, *found)
            except UndecodableError as error:
                failures[row] = error
        return failures

    @abstractmethod
    def _put(self, row: int, member: bytes, extension: str) -> None:
        pass

    @abstractmethod
    def finish(self) -> Tensor | Ragged:
        """The values, with what stands in for those that are lacking."""


class CollatedColumn(Column):
    """Values that are put together at the end."""

    def __init__(self, field: FieldDecoder, rows: int) -> None:
        super().__init__()
        self._field = field
        self._values: list[Any] = [None] * rows

    def _put(self, row: int, member: bytes, extension: str) -> None:
        self._values[row] = value = self._field.decode(member, extension)
        if value is None:
            self.lacking.add(row)

    def finish(self) -> Tensor | Ragged:
        """Collated by the field."""
        for row in self.lacking:
            self._values[row] = self._field.missing()
        return self._field.collate(self._values)


class FixedColumn(Column):
    """Values that are decoded where they stay."""

    def __init__(self, field: FixedField, rows: int, buffers: Buffers) -> None:
        super().__init__()
        self._field = field
        self._places = buffers.empty((rows, *field.shape), field.dtype)

    def _put(self, row: int, member: bytes, extension: str) -> None:
        self._field.decode_into(self._places[row], member, extension)

    def finish(self) -> Tensor:
        """``[rows, ...]``, as the field arranges its axes."""
        for row in self.lacking:
            self._places[row] = self._field.blank
        return torch.from_numpy(self._field.arrange(self._places))
