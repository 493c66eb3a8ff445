"""How a member of a sample becomes a tensor: the frame, and the fields that are plain numbers.

A `FieldDecoder` decodes one member to a NumPy array or Python value, and collates those of a batch.
A sample may lack a field: `missing` stands in for it and the batch gets ``<field>.present``.
Pictures and text have files of their own.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from ssl_scale.data.json_entry import json_entry
from ssl_scale.data.undecodable import UndecodableError as UndecodableError
from ssl_scale.part import Count, Part
from ssl_scale.types import Ragged

# Of rows up to this length, calling NumPy for each takes longer than moving them.
_SHORT = 512
# Reading one of these runs whatever code it holds.
_PICKLES = frozenset({"pkl", "pickle", "pyd", "pt", "pth", "joblib"})


class FieldDecoder(Part, ABC):
    """Turns members of one kind into values, and values into a batch's tensor.

    Args:
        extension: of the members, without a dot; of several, a sample's first one counts.
    """

    def __init__(self, extension: str | Sequence[str]) -> None:
        names = [extension] if isinstance(extension, str) else list(extension)
        if not names or not all(names):
            raise ValueError(f"extension must name at least one, but is {extension!r}")
        self.extensions = tuple(name.lstrip(".").lower() for name in names)
        for name in self.extensions:
            if name.rpartition(".")[-1] in _PICKLES:
                raise ValueError(
                    f"extension must not be a pickle's, but is {name!r}: reading it would run "
                    "whatever code it holds; store arrays as npy or npz, the rest as json"
                )

    @abstractmethod
    def decode(self, member: bytes, extension: str) -> Any:
        """The value of one member; None if the member says that the sample lacks the field.

        Raises:
            UndecodableError: the bytes are not what the field must be.
        """

    @abstractmethod
    def missing(self) -> Any:
        """What stands in for the value of a sample that lacks the field."""

    @abstractmethod
    def collate(self, values: Sequence[Any]) -> Tensor | Ragged:
        """The values of a batch as one tensor ``[batch, ...]``."""


class FixedField(FieldDecoder):
    """A field whose values have one shape: each is decoded where it stays, in its batch.

    Args:
        extension: of the members.
        shape: of a value, as it is decoded.
        dtype: of a value.
        blank: what fills the place of a sample that lacks the field.
    """

    def __init__(
        self,
        extension: str | Sequence[str],
        shape: tuple[int, ...],
        dtype: DTypeLike,
        blank: float = 0,
    ) -> None:
        super().__init__(extension)
        self.shape, self.dtype, self.blank = shape, np.dtype(dtype), blank

    @abstractmethod
    def decode_into(self, place: np.ndarray, member: bytes, extension: str) -> None:
        """Decode a member into ``[*shape]``.

        Raises:
            UndecodableError: the bytes are not what the field must be.
        """

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """``[..., *shape]`` with its axes in the order that batches have; a view."""
        return values

    def decode(self, member: bytes, extension: str) -> np.ndarray:
        """One value, its axes as in batches."""
        place = np.empty(self.shape, self.dtype)
        self.decode_into(place, member, extension)
        return self.arrange(place)

    def missing(self) -> np.ndarray:
        """Blank."""
        return self.arrange(np.full(self.shape, self.blank, self.dtype))

    def collate(self, values: Sequence[np.ndarray]) -> Tensor:
        """``[batch, ...]``."""
        return torch.from_numpy(np.stack(values))


class LabelField(FieldDecoder):
    """A class number, or several.

    Args:
        extension: of the members: a number; with `multiple` any number of them, between commas or
            spaces, with or without brackets.
        num_classes: classes are 0 to this, exclusive.
        multiple: whether a sample may be of several classes; the batch then holds ``[batch,
            classes]`` zeros and ones.
        entry: where ``.json`` members have it, as in ``object.label``.
    """

    def __init__(
        self,
        extension: str | Sequence[str],
        num_classes: Count,
        multiple: bool = False,
        entry: str | None = None,
    ) -> None:
        super().__init__(extension)
        self.num_classes, self.multiple, self.entry = num_classes, multiple, entry

    def decode(self, member: bytes, extension: str) -> int | list[int] | None:
        """The class, or the list of classes."""
        if (content := json_entry(member, extension, self.entry)) is None:
            return None
        text = content.decode("utf-8", "replace").strip()
        if self.multiple:
            words = text.removeprefix("[").removesuffix("]").replace(",", " ").split()
            return [self._number(word) for word in words]
        return self._number(text)

    def _number(self, text: str) -> int:
        number = int(text) if text.isascii() and text.removeprefix("-").isdigit() else -1
        if not 0 <= number < self.num_classes:
            raise UndecodableError(
                f"must be a whole number in [0, {self.num_classes}), but is {text[:40]!r}"
            )
        return number

    def missing(self) -> int | None:
        """Unknown: -1, for every class where there may be several."""
        return None if self.multiple else -1

    def collate(self, values: Sequence[int | list[int] | None]) -> Tensor:
        """``[batch]`` class numbers, or ``[batch, classes]``; -1 where unknown."""
        if not self.multiple:
            return torch.from_numpy(np.array(values, dtype=np.int64))
        table = torch.zeros(len(values), self.num_classes, dtype=torch.int64)
        for row, classes in zip(table, values, strict=True):
            if classes is None:
                row.fill_(-1)
            else:
                row[classes] = 1
        return table


class NumberField(FieldDecoder):
    """One number, as text.

    Args:
        extension: of the members.
        entry: where ``.json`` members have it, as in ``scores.0``.
    """

    def __init__(self, extension: str | Sequence[str], entry: str | None = None) -> None:
        super().__init__(extension)
        self.entry = entry

    def decode(self, member: bytes, extension: str) -> float | None:
        """The number."""
        if (content := json_entry(member, extension, self.entry)) is None:
            return None
        text = content.decode("utf-8", "replace").strip()
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UndecodableError(f"must be a finite number, but is {text[:40]!r}")
        return number

    def missing(self) -> float:
        """Not a number."""
        return math.nan

    def collate(self, values: Sequence[float]) -> Tensor:
        """``[batch]`` float32."""
        return torch.from_numpy(np.array(values, dtype=np.float32))


def pad(values: Sequence[np.ndarray], axes: int = 1) -> Ragged:
    """Arrays of different lengths as one tensor, at least one place long: no axis is empty.

    Args:
        values: arrays that differ in their first axes only.
        axes: in how many.
    """
    shapes = map(len, values) if axes == 1 else (value.shape[:axes] for value in values)
    lengths = np.array(list(shapes), dtype=np.int64).reshape(len(values), axes)
    longest = np.maximum(lengths.max(0), 1)
    padded = np.zeros((len(values), *longest, *values[0].shape[axes:]), values[0].dtype)
    if axes == 1 and longest[0] <= _SHORT:
        padded[np.arange(longest[0]) < lengths] = np.concatenate(values)
    else:
        for row, value in zip(padded, values, strict=True):
            row[tuple(map(slice, value.shape[:axes]))] = value
    return Ragged(
        torch.from_numpy(padded), torch.from_numpy(lengths.ravel() if axes == 1 else lengths)
    )
