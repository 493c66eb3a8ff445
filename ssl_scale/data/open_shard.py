"""A shard that samples are read from, laid out so that one takes as little of Python as can be.

What can be worked out for all samples at once is, when the shard is opened: which of a field's
extensions each sample has, where its members begin and end, and whether one read gets all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from ssl_scale.data.index import Dataset, read_shard_index
from ssl_scale.data.index_block import narrow
from ssl_scale.data.member_checks import MASK
from ssl_scale.data.reader import SHARD_READER
from ssl_scale.data.samples import ShardIndex
from ssl_scale.errors import DataError

Members: TypeAlias = dict[str, tuple[bytes, str] | None]
# Reading so many bytes more takes less time than a second read.
_LARGEST_GAP = 1 << 15
_APART = -1


class OpenShard:
    """The samples of one shard.

    Args:
        dataset: whose shard.
        number: which one.
        fields: field -> its extensions; of several, a sample's first one counts.
        checksums: whether each member that is read is compared with what was indexed.
    """

    def __init__(
        self,
        dataset: Dataset,
        number: int,
        fields: Mapping[str, Sequence[str]],
        checksums: bool = True,
    ) -> None:
        wanted = dict.fromkeys(name for names in fields.values() for name in names)
        index = read_shard_index(dataset, number, wanted)
        shard, self.location = dataset.shards[number], dataset.location(number)
        self.keys = index.keys
        self._dataset, self._checksums = dataset, checksums
        self._file = self.location, shard.bytes, shard.xxh3
        self._lacking: Members = dict.fromkeys(fields)
        self._lay_out(index, fields)

    def fetch(self, row: int) -> Members:
        """The bytes and extension of each field; None where the sample lacks it.

        Raises:
            DataError: they cannot be read, or are not those that were indexed.
        """
        members = self._lacking.copy()
        first, length = self._firsts[row], self._lengths[row]
        block = b"" if length == _APART else self._read(first, length)
        for field, extension, starts, ends, checks in self._fields:
            if (end := ends[row]) >= 0:
                start = starts[row]
                if length == _APART:
                    content = self._read(first + start, end - start)
                else:
                    content = block[start:end]
                if self._checksums and xxh3_64_intdigest(content) & MASK != checks[row]:
                    raise self._changed(row, field)
                members[field] = content, extension
        return members

    def _read(self, offset: int, length: int) -> bytes:
        return SHARD_READER.read(*self._file, offset, length, self._dataset.cache)

    def _lay_out(self, index: ShardIndex, fields: Mapping[str, Sequence[str]]) -> None:
        """Each sample's read, and its members' places in it; Python reads a `memoryview` fast."""
        chosen = list(_choose(index, fields))
        firsts = np.full(len(index), np.iinfo(np.int64).max)
        lasts, filled = np.zeros((2, len(index)), np.int64)
        for _, name, rows in chosen:
            offsets, lengths = index.offsets[name][rows], index.lengths[name][rows]
            firsts[rows] = np.minimum(firsts[rows], offsets)
            lasts[rows] = np.maximum(lasts[rows], offsets.astype(np.int64) + lengths)
            filled[rows] += lengths
        firsts = np.minimum(firsts, lasts)  # where a sample has none of the fields
        # A sample's members stand side by side: one read for all, unless much lies between them.
        is_dense = lasts - firsts <= _LARGEST_GAP + filled
        self._firsts = narrow(firsts).data
        self._lengths = narrow(np.where(is_dense, lasts - firsts, _APART)).data
        self._fields: list[tuple[str, str, memoryview, memoryview, memoryview]] = []
        for field, name, rows in chosen:
            starts = np.where(rows, index.offsets[name] - firsts, 0)
            ends = np.where(rows, starts + index.lengths[name], -1)
            columns = narrow(starts).data, narrow(ends).data, index.checks[name].data
            self._fields.append((field, name, *columns))

    def _changed(self, row: int, field: str) -> DataError:
        cache = self._dataset.cache
        copy = "" if cache is None else f" (its copy in {cache.folder}, if only that is damaged)"
        return DataError(
            f"{self.location}: sample {self.keys[row]!r}: the bytes of field {field!r} must be "
            "those that were indexed, but are others: the shard was changed or damaged in place; "
            f"restore it{copy}, or run `ssl-data index` if the change was meant"
        )


def _choose(
    index: ShardIndex, fields: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Field, extension, and the samples whose first one of the field this extension is."""
    for field, names in fields.items():
        is_open = np.ones(len(index), dtype=bool)
        for name in names:
            if name in index.lengths:
                has = is_open & (index.lengths[name] >= 0)
                is_open &= ~has
                yield field, name, has
