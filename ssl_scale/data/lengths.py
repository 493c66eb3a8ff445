"""How long every sample is, before any is read: what packing and token counts are worked out from.

``lengths/NAME.npy`` in a data set's folder holds a uint32 for each sample, in stored order; NAME
says of which members, and by which tokenizer. ``lengths/NAME.json`` beside it seals the two to the
contents of the data set. ``ssl-data lengths`` writes both.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ssl_scale.data.index import Dataset
from ssl_scale.data.seeds import Whole
from ssl_scale.data.source import Source
from ssl_scale.errors import DataError

LENGTHS_FOLDER = "lengths"
VERSION = 1
# Stands for a sample without the member, or with one that does not decode.
ABSENT = 2**32 - 1


@runtime_checkable
class Measured(Protocol):
    """A field whose samples have lengths.

    Attributes:
        length_name: names the file; equal names mean equal counts.
        length_options: what `ssl-data lengths` must be told.
    """

    @property
    def length_name(self) -> str: ...  # noqa: D102

    @property
    def length_options(self) -> str: ...  # noqa: D102

    def count(self, member: bytes, extension: str) -> int | None:
        """What is stored of a member; None if it says that the sample lacks the field."""

    def lengths_of(self, counts: Whole) -> Whole:
        """Lengths in a batch, of what is stored."""


def length_files(folder: Path, name: str) -> tuple[Path, Path]:
    """The column and its seal."""
    return folder / LENGTHS_FOLDER / f"{name}.npy", folder / LENGTHS_FOLDER / f"{name}.json"


def seal_of(dataset: Dataset) -> dict[str, Any]:
    """What a column of lengths is sealed to."""
    samples = dataset.num_samples
    return {"version": VERSION, "dataset": dataset.fingerprint, "samples": samples}


class Lengths:
    """The lengths of a source's samples, at their positions in the run.

    Args:
        source: whose samples.
        field: the field whose length is the sample's.

    Raises:
        DataError: there are none, or of other contents; says how to make them.
    """

    def __init__(self, source: Source, field: str) -> None:
        decoder = source.fields[field]
        if not isinstance(decoder, Measured):
            raise DataError(
                f"source {source.name!r}: lengths must be those of a field of texts, sounds or "
                f"arrays, but {field!r} is a {type(decoder).__name__}"
            )
        self.source, self.field, self.decoder = source, field, decoder
        self.path, seal = length_files(source.dataset.folder, decoder.length_name)
        remedy = f"run `ssl-data lengths {source.dataset.folder} {decoder.length_options}`"
        try:
            sealed = json.loads(seal.read_text())
        except FileNotFoundError:
            raise DataError(
                f"{self.path}: source {source.name!r} must have the lengths of field {field!r}, "
                f"but has none; {remedy}"
            ) from None
        except ValueError as error:
            raise DataError(f"{seal}: must be JSON, but is not ({error}); {remedy}") from error
        if sealed != seal_of(source.dataset):
            raise DataError(
                f"{seal}: must be of the data set as it is, {seal_of(source.dataset)}, but is of "
                f"{sealed}; {remedy}"
            )
        if self._column.shape != (source.dataset.num_samples,) or self._column.dtype != np.uint32:
            raise DataError(
                f"{self.path}: must hold {source.dataset.num_samples} uint32, but holds "
                f"{self._column.shape} {self._column.dtype}; {remedy}"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key[0] != "_"}

    def at(self, positions: Whole) -> Whole:
        """The lengths of the samples at positions of the run; 0 for one that lacks the field."""
        place = self.source.order.locate(positions)
        return self._lengths(self._column[self._starts[place.shard] + place.row])

    def mean(self) -> float:
        """The mean of all samples."""
        return float(self._lengths(self._column).mean())

    def _lengths(self, counts: NDArray[np.uint32]) -> Whole:
        is_there = counts != ABSENT
        return np.where(is_there, self.decoder.lengths_of(counts.astype(np.int64)), 0)

    @cached_property
    def _column(self) -> NDArray[np.uint32]:
        column: NDArray[np.uint32] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return column

    @cached_property
    def _starts(self) -> Whole:
        sizes = np.array(self.source.dataset.sizes, dtype=np.int64)
        return np.cumsum(sizes) - sizes
