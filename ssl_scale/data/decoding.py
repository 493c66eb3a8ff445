"""How a member of a sample becomes a tensor: the frame, and the fields that are plain numbers.

A `FieldDecoder` decodes one member to a NumPy array or Python value, and collates those of a batch.
A sample may lack a field: `missing` stands in for it and the batch gets ``<field>.present``.
Pictures and text have files of their own.
"""

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from ssl_scale.data.seeds import Whole
from ssl_scale.errors import DataError
from ssl_scale.part import Count, Part
from ssl_scale.types import Ragged


class UndecodableError(DataError):
    """A member's bytes are not what its field must be: the sample is bad, not the disk."""


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

    @abstractmethod
    def decode(self, member: bytes, extension: str) -> Any:
        """The value of one member.

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
    """

    def __init__(
        self, extension: str | Sequence[str], num_classes: Count, multiple: bool = False
    ) -> None:
        super().__init__(extension)
        self.num_classes, self.multiple = num_classes, multiple

    def decode(self, member: bytes, extension: str) -> int | list[int]:
        """The class, or the list of classes."""
        text = member.decode("utf-8", "replace").strip()
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
            return torch.tensor(values, dtype=torch.int64)
        table = torch.zeros(len(values), self.num_classes, dtype=torch.int64)
        for row, classes in zip(table, values, strict=True):
            if classes is None:
                row.fill_(-1)
            else:
                row[classes] = 1
        return table


class NumberField(FieldDecoder):
    """One number, as text."""

    def decode(self, member: bytes, extension: str) -> float:
        """The number."""
        text = member.decode("utf-8", "replace").strip()
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
        return torch.tensor(values, dtype=torch.float32)


class ArrayField(FieldDecoder):
    """A NumPy array (``.npy``), never one of Python objects.

    Args:
        extension: of the members.
        shape: of each array; -1 as the first length lets it differ, and the batch is ragged.
        dtype: what the values are converted to.
    """

    def __init__(
        self,
        extension: str | Sequence[str],
        shape: Sequence[int],
        dtype: Literal["float32", "float64", "int64", "int32", "uint8", "bool"] = "float32",
    ) -> None:
        super().__init__(extension)
        self.shape = tuple(shape)
        if any(size < 1 for size in self.shape[1:]) or self.shape[:1] in ((0,), (-2,)):
            raise ValueError(
                f"shape must have lengths of at least 1, or -1 as the first, but is {list(shape)}"
            )
        self.varies = self.shape[:1] == (-1,)
        self.dtype = np.dtype(dtype)

    def decode(self, member: bytes, extension: str) -> np.ndarray:
        """The array."""
        array = _read_npy(member)
        expected = (*array.shape[:1], *self.shape[1:]) if self.varies else self.shape
        if array.shape != expected or array.ndim != len(self.shape):
            raise UndecodableError(
                f"must have shape {list(self.shape)}, but has {list(array.shape)}"
            )
        return array.astype(self.dtype, copy=False)

    @property
    def length_name(self) -> str:
        """Arrays are counted as they are stored."""
        return f"{'+'.join(self.extensions)}-npy"

    @property
    def length_options(self) -> str:
        """Nothing but the extension."""
        return f"--extension {' '.join(self.extensions)}"

    def count(self, member: bytes) -> int:
        """The array's first length."""
        array = _read_npy(member)
        if not array.ndim:
            raise UndecodableError("must have a length, but is a single number")
        return len(array)

    def lengths_of(self, counts: Whole) -> Whole:
        """The same: arrays are not cut."""
        return counts

    def missing(self) -> np.ndarray:
        """Zeros; none at all where the length differs."""
        return np.zeros((0, *self.shape[1:]) if self.varies else self.shape, self.dtype)

    def collate(self, values: Sequence[np.ndarray]) -> Tensor | Ragged:
        """``[batch, *shape]``, padded with zeros where the length differs."""
        if self.varies:
            return pad(values)
        return torch.from_numpy(np.stack(values))


def pad(values: Sequence[np.ndarray]) -> Ragged:
    """Arrays of different lengths as one tensor, at least one place long: no axis is empty."""
    lengths = [len(value) for value in values]
    longest = max(1, *lengths)
    padded = np.zeros((len(values), longest, *values[0].shape[1:]), values[0].dtype)
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = value
    return Ragged(torch.from_numpy(padded), torch.tensor(lengths, dtype=torch.int64))


def _read_npy(member: bytes) -> np.ndarray:
    """Read an array; a header that lies about the size is refused before it claims memory."""
    file = io.BytesIO(member)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(file)
        expected = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or expected != len(member) - file.tell():
            raise ValueError(f"a header of {shape} {dtype} does not fit {len(member)} bytes")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UndecodableError(f"must be a .npy array of numbers, but is not ({error})") from error
