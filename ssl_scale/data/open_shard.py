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
from ssl_scale.data.member_checks import MASK, check_of
from ssl_scale.data.reader import SHARD_READER
from ssl_scale.data.samples import ShardIndex
from ssl_scale.errors import DataError

Members: TypeAlias = dict[str, tuple[bytes, str] | None]
# Reading so many bytes more takes less time than a second read.
_LARGEST_GAP = 1 << 15
# Samples are read together where no more lies between them, and up to so many bytes of them.
_LARGEST_STEP, _LARGEST_READ = 1 << 12, 1 << 18
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

    def fetch(self, row: int, most: int = 1) -> list[Members]:
        """The bytes and extension of each field, of the sample in a row and those that follow it.

        Args:
            row: of the first sample.
            most: samples to fetch; there are fewer where one read does not get them all.

        Returns:
            Of each sample, field -> bytes and extension; None where it lacks the field.

        Raises:
            DataError: they cannot be read, or are not those that were indexed.
        """
        firsts, lengths, follows = self._firsts, self._lengths, self._follows
        first, length, end = firsts[row], lengths[row], row + 1
        if length == _APART:
            return [self._fetch_apart(row)]
        while end < row + most and follows[end]:
            longer = firsts[end] + lengths[end] - first
            if longer > _LARGEST_READ:
                break
            end, length = end + 1, longer
        block = SHARD_READER.read(*self._file, first, length, self._dataset.cache)
        found, fields, checksums = [], self._fields, self._checksums
        for each in range(row, end):
            base, members = firsts[each] - first, self._lacking.copy()
            for field, extension, starts, ends, checks in fields:
                if (stop := ends[each]) >= 0:
                    content = block[base + starts[each] : base + stop]
                    if checksums and xxh3_64_intdigest(content) & MASK != checks[each]:
                        raise self._changed(each, field)
                    members[field] = content, extension
            found.append(members)
        return found

    def _fetch_apart(self, row: int) -> Members:
        """A sample with much between its members."""
        first, members = self._firsts[row], self._lacking.copy()
        for field, extension, starts, ends, checks in self._fields:
            start, length = first + starts[row], ends[row] - starts[row]
            if ends[row] >= 0:
                content = SHARD_READER.read(*self._file, start, length, self._dataset.cache)
                if self._checksums and check_of(content) != checks[row]:
                    raise self._changed(row, field)
                members[field] = content, extension
        return members

    def _lay_out(self, index: ShardIndex, fields: Mapping[str, Sequence[str]]) -> None:
        """Each sample's place, and its members' places in it; Python reads a `memoryview` fast."""
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
        follows = np.zeros(len(index), dtype=bool)
        gaps = firsts[1:] - lasts[:-1]
        follows[1:] = is_dense[1:] & is_dense[:-1] & (gaps >= 0) & (gaps <= _LARGEST_STEP)
        self._follows, self._firsts = follows.data, narrow(firsts).data
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
