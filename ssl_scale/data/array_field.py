"""Arrays of numbers: ``.npy``, or one of those in an ``.npz``; never Python objects."""

import io
from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from ssl_scale.data.decoding import FieldDecoder, UndecodableError, pad
from ssl_scale.data.npy import Check, read_npy, read_npz
from ssl_scale.data.seeds import Whole
from ssl_scale.part import Count
from ssl_scale.types import Ragged


class ArrayField(FieldDecoder):
    """An array of numbers.

    Args:
        extension: of the members.
        shape: of each array. Lengths of -1 differ from sample to sample: how many points, steps
            or channels there are. The batch is then ragged in the axes up to the last such one.
        dtype: what the values are converted to.
        entry: which array of ``.npz`` members; others are ``.npy``, whatever they are called.
        most: the longest that each length of -1 may be; a sample with more is bad. Needed where
            several differ, as a batch is padded to the longest of each.
        finite: whether a sample with NaN or infinity is bad.
    """

    def __init__(
        self,
        extension: str | Sequence[str],
        shape: Sequence[int],
        dtype: Literal["float32", "float64", "int64", "int32", "uint8", "bool"] = "float32",
        entry: str | None = None,
        most: Sequence[Count] | None = None,
        finite: bool = True,
    ) -> None:
        super().__init__(extension)
        self.shape, self.entry, self.finite = tuple(shape), entry, finite
        if any(size < 1 and size != -1 for size in self.shape):
            raise ValueError(
                f"shape must have lengths of at least 1, or -1 where they differ, but is "
                f"{list(shape)}"
            )
        varying = [axis for axis, size in enumerate(self.shape) if size == -1]
        if len(most or varying) != len(varying) or (most is None and len(varying) > 1):
            raise ValueError(
                f"most must have a number for each -1 of the shape {list(shape)}, but is "
                f"{None if most is None else list(most)}"
            )
        self.ragged_axes = varying[-1] + 1 if varying else 0
        self.most = dict(zip(varying, most, strict=True)) if most else {}
        if entry is None and any(map(_is_archive, self.extensions)):
            raise ValueError("entry must name an array of the .npz, but is null")
        self.dtype = np.dtype(dtype)

    def decode(self, member: bytes, extension: str) -> np.ndarray:
        """The array."""
        array = self._read(member, extension, self._check_shape)
        with np.errstate(over="ignore", invalid="ignore"):
            values = array.astype(self.dtype, copy=False)
        for numbers in (array, values) if self.finite else ():
            if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
                raise UndecodableError(
                    f"must be finite as {self.dtype}, but has NaN or infinity; set `finite: false` "
                    "where that is meant"
                )
        return values

    @property
    def length_name(self) -> str:
        """Arrays are counted as they are stored."""
        kind = "npy" if self.entry is None else f"npz-{quote(self.entry, safe='')}"
        return f"{'+'.join(self.extensions)}-{kind}"

    @property
    def length_options(self) -> str:
        """The extension, and which array."""
        entry = "" if self.entry is None else f" --entry {self.entry}"
        return f"--extension {' '.join(self.extensions)}{entry}"

    def count(self, member: bytes, extension: str) -> int:
        """The array's first length."""
        array = self._read(member, extension, lambda shape: None)
        if not array.ndim:
            raise UndecodableError("must have a length, but is a single number")
        return len(array)

    def lengths_of(self, counts: Whole) -> Whole:
        """The same: arrays are not cut."""
        return counts

    def missing(self) -> np.ndarray:
        """Zeros; none at all where a length differs."""
        ragged = (0,) * self.ragged_axes
        return np.zeros((*ragged, *self.shape[self.ragged_axes :]), self.dtype)

    def collate(self, values: Sequence[np.ndarray]) -> Tensor | Ragged:
        """``[batch, *shape]``, padded with zeros where a length differs."""
        if self.ragged_axes:
            return pad(values, self.ragged_axes)
        return torch.from_numpy(np.stack(values))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != len(self.shape) or any(
            has != wanted != -1 for has, wanted in zip(shape, self.shape, strict=True)
        ):
            raise UndecodableError(f"must have shape {list(self.shape)}, but has {list(shape)}")
        for axis, most in self.most.items():
            if shape[axis] > most:
                raise UndecodableError(
                    f"must have a length of at most {most} in axis {axis}, but has {shape[axis]}"
                )

    def _read(self, member: bytes, extension: str, check: Check) -> np.ndarray:
        if self.entry is not None and _is_archive(extension):
            return read_npz(member, self.entry, check)
        return read_npy(io.BytesIO(member), len(member), check)


def _is_archive(extension: str) -> bool:
    return extension.rpartition(".")[-1] == "npz"
