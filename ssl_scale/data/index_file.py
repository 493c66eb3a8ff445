"""``dataset.index``: all shards of a data set in one file, of which only a table is held open.

Little-endian throughout; a head, then one block a shard (see `index_block`):

    8 bytes  ``sslindex``
    u32      version
    u32      stride: bytes of a shard's name, shorter ones are filled up with zeros
    u64      n, the number of shards
    u64      [n + 1] where each shard's block starts in this file; the last is where it ends
    u64      [n] bytes of the shard
    16 bytes [n] the 128-bit XXH3 of its bytes
    u32      [n] samples
    stride   [n] name

The head is memory-mapped, so ranks and workers of a node share it; blocks are read as they are
needed. So a data set of a million shards opens as fast as one of ten, and takes no memory that
grows with its samples. ``dataset.json`` knows the sizes of head and file and the head's XXH3, which
are checked on opening; a block has a checksum of its own. What is hostile rather than damaged can
at worst point at other bytes of the shards it names: names must be plain file names.

Limits: 2^32 - 1 samples a shard, names of 255 bytes.
"""

import mmap
import os
import struct
import time
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ssl_scale.errors import DataError

VERSION = 2
_MAGIC = b"sslindex"
_START = struct.Struct("<8sIIQ")
_LONGEST_NAME = 255
_CHUNK = 1 << 20
_WAITS_S = (0.05, 0.5)


@dataclass(frozen=True)
class Shard:
    """A shard as the index lists it.

    Args:
        name: its file name.
        samples: how many it holds.
        bytes: its size.
        xxh3: the 128-bit XXH3 of its bytes, in hexadecimal.
    """

    name: str
    samples: int
    bytes: int
    xxh3: str


@dataclass(frozen=True)
class Seal:
    """What ``dataset.json`` says of the index file.

    Args:
        bytes: its size.
        head_bytes: size of its head.
        head_xxh3: the 128-bit XXH3 of its head, in hexadecimal.
    """

    bytes: int
    head_bytes: int
    head_xxh3: str


class ShardTable(Sequence[Shard]):
    """The shards of an index file, read from its head as they are asked for.

    Args:
        path: the index file.
        seal: what it must be.

    Raises:
        DataError: the file is missing, or is not what the seal says.
    """

    def __init__(self, path: Path, seal: Seal) -> None:
        self.path, self.seal = path, seal
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._damaged(f"cannot be opened ({error})") from error
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        size = os.fstat(descriptor).st_size
        if size != seal.bytes or not _START.size <= seal.head_bytes <= size:
            raise self._damaged(f"has {size} bytes, {seal.head_bytes} of them its head")
        if self._hash_start(seal.head_bytes) != seal.head_xxh3:
            raise self._damaged("has a head with another checksum")
        head = mmap.mmap(descriptor, seal.head_bytes, access=mmap.ACCESS_READ)
        magic, version, stride, shards = _START.unpack_from(head)
        if (magic, version) != (_MAGIC, VERSION):
            raise self._damaged(f"is of the form {magic!r}, version {version}")
        if not (shards and 0 < stride <= _LONGEST_NAME) or (
            head_bytes(shards, stride) != seal.head_bytes
        ):
            raise self._damaged(f"has a head for {shards} shards with names of {stride} bytes")
        self._starts, self._bytes, self._hashes, self.sizes, self._names = (
            np.frombuffer(head, kind, count, offset)
            for kind, count, offset in _columns(shards, stride)
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return tuple(self[each] for each in range(*number.indices(len(self))))
        return Shard(
            self.name(number),
            int(self.sizes[number]),
            int(self._bytes[number]),
            self._hashes[number].tobytes().hex(),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardTable, (self.path, self.seal)

    def name(self, shard: int) -> str:
        """A shard's file name.

        Raises:
            DataError: it is not a plain file name.
        """
        raw = bytes(self._names[shard])
        name = raw.decode(errors="replace")
        if "/" in name or "\0" in name or name in ("", ".", ".."):
            raise self._damaged(f"lists {name!r}, where a plain file name must stand")
        return name

    def block(self, shard: int) -> bytes:
        """A shard's block.

        Raises:
            DataError: it cannot be read.
        """
        start, end = int(self._starts[shard]), int(self._starts[shard + 1])
        if not self.seal.head_bytes <= start <= end <= self.seal.bytes:
            raise self._damaged(f"places the block of {self.name(shard)} at {start} to {end}")
        block = self._read(end - start, start)
        if len(block) != end - start:
            raise self._damaged(f"ends before byte {end}")
        return block

    @cached_property
    def fingerprint(self) -> str:
        """A hash of sizes and contents of all shards, in their order."""
        digest = xxhash.xxh3_128(self.sizes.tobytes())
        digest.update(self._hashes.tobytes())
        return digest.hexdigest()

    @cached_property
    def total_bytes(self) -> int:
        """Size of all shards."""
        return int(self._bytes.sum())

    @cached_property
    def total_samples(self) -> int:
        """Samples in all shards.

        Raises:
            DataError: there are no shards, or one is empty.
        """
        if not len(self) or not self.sizes.all():
            raise self._damaged("lists no shards, or a shard without samples")
        return int(self.sizes.sum(dtype=np.int64))

    def _hash_start(self, length: int) -> str:
        """By reading: what is touched in a mapping counts as this process's memory."""
        digest = xxhash.xxh3_128()
        for place in range(0, length, _CHUNK):
            digest.update(self._read(min(_CHUNK, length - place), place))
        return digest.hexdigest()

    def _read(self, length: int, start: int) -> bytes:
        """A part of the file; as with shards, a disk that errs is asked again."""
        for wait_s in _WAITS_S:
            try:
                return os.pread(self._descriptor, length, start)
            except OSError:
                time.sleep(wait_s)
        try:
            return os.pread(self._descriptor, length, start)
        except OSError as error:
            raise DataError(
                f"{self.path}: {length} bytes at {start} must be readable, but reading failed "
                f"{len(_WAITS_S) + 1} times ({error}); check the disk or the network and start "
                "again"
            ) from error

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{self.path}: must be the index that dataset.json was written for ({self.seal.bytes} "
            f"bytes), but {what}; run `ssl-data index {self.path.parent}`"
        )


def write_index(path: Path, shards: Sequence[Shard], blocks: Iterable[bytes]) -> Seal:
    """Write an index file; the caller renames it into place.

    Args:
        path: where to.
        shards: in their order.
        blocks: of each of them.
    """
    names = [shard.name.encode() for shard in shards]
    stride = max(map(len, names))
    if stride > _LONGEST_NAME:
        raise DataError(
            f"{path.parent}: names of shards must be at most {_LONGEST_NAME} bytes long, but one "
            f"has {stride}; rename it"
        )
    starts = [head_bytes(len(shards), stride)]
    with path.open("wb") as file:
        file.seek(starts[0])
        for block in blocks:
            file.write(block)
            starts.append(starts[-1] + len(block))
        head = encode_head(
            stride,
            starts,
            [shard.bytes for shard in shards],
            [bytes.fromhex(shard.xxh3) for shard in shards],
            [shard.samples for shard in shards],
            names,
        )
        file.seek(0)
        file.write(head)
        file.flush()
        os.fsync(file.fileno())
    return Seal(starts[-1], starts[0], xxhash.xxh3_128_hexdigest(head))


def encode_head(
    stride: int, starts: Any, sizes: Any, hashes: Any, samples: Any, names: Any
) -> bytes:
    """The head of an index file; its columns are lists or arrays of equally many shards.

    Args:
        stride: bytes of the longest name.
        starts: of the blocks, and the end of the last one.
        sizes: bytes of the shards.
        hashes: 16 bytes each.
        samples: of the shards.
        names: of the shards, as bytes.
    """
    head = bytearray(head_bytes(len(samples), stride))
    _START.pack_into(head, 0, _MAGIC, VERSION, stride, len(samples))
    columns = zip(
        _columns(len(samples), stride), (starts, sizes, hashes, samples, names), strict=True
    )
    for (kind, count, offset), column in columns:
        np.frombuffer(head, kind, count, offset)[:] = np.asarray(column, dtype=kind)
    return bytes(head)


def head_bytes(shards: int, stride: int) -> int:
    """Size of the head for so many shards."""
    kind, count, place = _columns(shards, stride)[-1]
    return int(place + kind.itemsize * count)


def _columns(shards: int, stride: int) -> list[tuple[Any, int, int]]:
    """Type, length and place of each column of the head."""
    kinds: list[tuple[Any, int]] = [
        ("<u8", shards + 1),
        ("<u8", shards),
        ("V16", shards),
        ("<u4", shards),
        (f"S{stride}", shards),
    ]
    columns, place = [], _START.size
    for kind, count in kinds:
        columns.append((np.dtype(kind), count, place))
        place += np.dtype(kind).itemsize * count
    return columns
