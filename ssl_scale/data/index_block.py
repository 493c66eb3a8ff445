"""One shard's part of ``dataset.index``: where each field of each sample lies, in a few bytes.

A block is a checksum (u64, XXH3 of all that follows) and then, little-endian throughout:

    u32      samples
    u16      extensions
    strings  the keys
    for each extension, in the order in which members follow each other in a sample:
      u8     length of its name, then the name
      column length of each member plus one; 0 where a sample lacks it
      column gap of each member, in tar blocks of 512 bytes
      u16    [samples] checksum of each member; 0 where a sample lacks it

A **column** of integers is ``i64 least, u8 width``, then for each value its distance from the least
in `width` bytes, none where all are equal. A **gap** lies between the end of the member before and
the member's first byte: one block, the member's header, in nearly all archives, so offsets cost
nothing. **Strings** are a common prefix and suffix (``u8 length`` and bytes each) around middles:
``u8 1, u8 digits, column`` for numbers less the row (``digits`` 0: not padded), or ``u8 0, column``
of lengths and then the bytes. Keys that count up cost nothing either.

A block says all about its shard by itself, so blocks of unchanged shards are copied as they are.
What is read may be damaged or hostile: every length is checked before it is used.
"""

import os
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ssl_scale.data.samples import ShardIndex
from ssl_scale.data.tar import BLOCK
from ssl_scale.errors import DataError

# Samples times extensions of one shard: bounds what a hostile index makes a reader allocate.
MOST_MEMBERS = 1 << 24
_LONGEST_AFFIX = 60  # characters, so at most 240 bytes
_LONGEST_NUMBER = 18  # digits, which fit into 64 bits
_HEAP, _NUMBERS = 0, 1


class DamagedError(ValueError):
    """A block is not what this module writes."""


def encode_block(index: ShardIndex) -> bytes:
    """The bytes of a block.

    Args:
        index: of the shard, with checksums.

    Raises:
        DataError: the shard has too many members for one shard.
    """
    samples, names = len(index), _in_order(index)
    if not 0 < samples * len(names) <= MOST_MEMBERS:
        raise DataError(
            f"a shard must have at most {MOST_MEMBERS} members, but has {samples} samples x "
            f"{len(names)} extensions; split it"
        )
    lengths = np.stack([index.lengths[name] for name in names], axis=1).astype(np.int64)
    offsets = np.stack([index.offsets[name] for name in names], axis=1)
    present = lengths >= 0
    if (offsets[present] % BLOCK).any():
        raise ValueError(f"members must start at multiples of {BLOCK} bytes")
    ends = (offsets + lengths + BLOCK - 1) // BLOCK
    gaps = np.zeros_like(offsets)
    own = ends[present]
    gaps[present] = offsets[present] // BLOCK - np.append(0, own[:-1])
    # Where a member is absent any gap will do; the usual one costs nothing.
    for column in range(len(names)):
        gaps[~present[:, column], column] = gaps[present[:, column], column].min()
    parts = [struct.pack("<IH", samples, len(names)), _encode_strings(index.keys)]
    for column, name in enumerate(names):
        parts.append(_encode_text(name))
        parts.append(_encode_column(lengths[:, column] + 1))
        parts.append(_encode_column(gaps[:, column]))
        parts.append(index.checks[name].astype("<u2").tobytes())
    body = b"".join(parts)
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(body)) + body


def decode_block(block: bytes, wanted: Iterable[str], samples: int, end: int) -> ShardIndex:
    """The samples of a block, with the wanted ones of its extensions.

    Args:
        block: its bytes.
        wanted: extensions; those that the shard lacks are left out.
        samples: how many there must be.
        end: the shard's length in bytes, which no member may cross.

    Raises:
        DamagedError: it is not such a block.
    """
    cursor = _Cursor(block)
    (checksum,) = cursor.unpack("<Q")
    if xxhash.xxh3_64_intdigest(memoryview(block)[8:]) != checksum:
        raise DamagedError("its checksum is wrong")
    rows, extensions = cursor.unpack("<IH")
    if rows != samples or not 0 < rows * extensions <= MOST_MEMBERS:
        raise DamagedError(f"it describes {rows} samples x {extensions} extensions")
    keys = _decode_strings(cursor, rows)
    names: list[str] = []
    checks: list[NDArray[np.uint16]] = []
    lengths = np.empty((rows, extensions), dtype=np.int64)
    steps = np.empty((rows, extensions), dtype=np.int64)
    for column in range(extensions):
        names.append(_decode_text(cursor))
        lengths[:, column] = _decode_column(cursor, rows)
        steps[:, column] = _decode_column(cursor, rows)
        checks.append(np.frombuffer(cursor.take(2 * rows), "<u2"))
    lengths -= 1
    filled = (lengths + (BLOCK - 1)) // BLOCK
    steps += filled
    absent = lengths < 0
    steps[absent] = 0
    offsets = (steps.cumsum().reshape(rows, extensions) - filled) * BLOCK
    offsets[absent] = 0
    if ((lengths < -1) | (lengths >= 1 << 31) | (offsets < 0) | (offsets > end - lengths)).any():
        raise DamagedError(f"a member lies outside the shard's {end} bytes")
    own = {name: column for column, name in enumerate(names)}
    chosen = [name for name in wanted if name in own]
    return ShardIndex(
        keys,
        {name: narrow(offsets[:, own[name]]) for name in chosen},
        {name: narrow(lengths[:, own[name]]) for name in chosen},
        {name: checks[own[name]].copy() for name in chosen},
    )


def narrow(values: NDArray[np.int64]) -> NDArray[np.signedinteger]:
    """A copy in the smallest signed type: every loader process keeps some hundred blocks.

    Args:
        values: none below -1.
    """
    most = int(values.max())
    kind = next(
        kind for kind in (np.int8, np.int16, np.int32, np.int64) if most <= np.iinfo(kind).max
    )
    return values.astype(kind)


def _in_order(index: ShardIndex) -> list[str]:
    """Extensions in the order in which their members follow each other."""
    present = sum((lengths >= 0).astype(np.int64) for lengths in index.lengths.values())
    fullest = int(np.argmax(present))

    def place(name: str) -> tuple[bool, int]:
        return bool(index.lengths[name][fullest] < 0), int(index.offsets[name][fullest])

    return sorted(index.offsets, key=place)


class _Cursor:
    """Takes a block's bytes in turn, and no more than there are."""

    def __init__(self, block: bytes) -> None:
        self._block, self._place = block, 0

    @property
    def left(self) -> int:
        return len(self._block) - self._place

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise DamagedError("it ends too early")
        self._place += length
        return self._block[self._place - length : self._place]

    def unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))


def _encode_column(values: NDArray[np.int64]) -> bytes:
    least, most = int(values.min()), int(values.max())
    width = ((most - least).bit_length() + 7) // 8
    distances = (values - least).astype("<u8").view(np.uint8).reshape(-1, 8)
    return struct.pack("<qB", least, width) + distances[:, :width].tobytes()


def _decode_column(cursor: _Cursor, rows: int) -> NDArray[np.int64]:
    least, width = cursor.unpack("<qB")
    if width > 8:
        raise DamagedError(f"a column is {width} bytes wide")
    if width == 0:
        return np.broadcast_to(np.int64(least), rows)
    distances = np.zeros((rows, 8), dtype=np.uint8)
    distances[:, :width] = np.frombuffer(cursor.take(rows * width), np.uint8).reshape(rows, width)
    return distances.view("<i8")[:, 0] + np.int64(least)


def _encode_text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise DataError(f"an extension must be at most 255 bytes long, but one is {text!r}")
    return bytes([len(raw)]) + raw


def _decode_text(cursor: _Cursor) -> str:
    (length,) = cursor.unpack("<B")
    return _text(cursor.take(length))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise DamagedError(f"a name is not UTF-8 ({error})") from None


def _encode_strings(strings: Sequence[str]) -> bytes:
    prefix = os.path.commonprefix(list(strings))[:_LONGEST_AFFIX].rstrip("0123456789")
    rest = [text[len(prefix) :] for text in strings]
    suffix = os.path.commonprefix([text[::-1] for text in rest])[:_LONGEST_AFFIX]
    suffix = suffix.rstrip("0123456789")[::-1]
    middles = [text[: len(text) - len(suffix)] for text in rest]
    parts = [_encode_text(prefix), _encode_text(suffix)]
    digits = _digits(middles)
    if digits is None:
        heap = [text.encode() for text in middles]
        parts += [bytes([_HEAP]), _encode_column(np.array([len(raw) for raw in heap])), *heap]
    else:
        numbers = np.array([int(text) for text in middles], dtype=np.int64)
        column = _encode_column(numbers - np.arange(len(numbers)))
        parts += [bytes([_NUMBERS, digits]), column]
    return b"".join(parts)


def _digits(middles: Sequence[str]) -> int | None:
    """To how many digits all are padded, 0 for none; None where they are not numbers."""
    sizes = {len(text) for text in middles}
    if not all(text.isascii() and text.isdigit() for text in middles):
        return None
    if max(sizes) > _LONGEST_NUMBER:
        return None
    if len(sizes) == 1:
        return sizes.pop()
    return 0 if all(text == "0" or text[0] != "0" for text in middles) else None


def _decode_strings(cursor: _Cursor, rows: int) -> Sequence[str]:
    prefix, suffix = _decode_text(cursor), _decode_text(cursor)
    (form,) = cursor.unpack("<B")
    if form == _NUMBERS:
        (digits,) = cursor.unpack("<B")
        return _NumberedKeys(prefix, suffix, digits, _decode_column(cursor, rows))
    if form != _HEAP:
        raise DamagedError(f"its keys are of an unknown form, {form}")
    lengths = _decode_column(cursor, rows)
    if not 0 <= int(lengths.min()) <= int(lengths.max()) <= cursor.left:
        raise DamagedError("its keys have impossible lengths")
    ends = lengths.cumsum()
    return _WrittenKeys(prefix, suffix, ends, cursor.take(int(ends[-1])))


class _Keys(Sequence[str]):
    """Keys left as they are stored: a Python string each would take ten times as much."""

    def __init__(self, prefix: str, suffix: str) -> None:
        self._prefix, self._suffix = prefix, suffix

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        if row < 0:
            row += len(self)
        if not 0 <= row < len(self):
            raise IndexError(f"row must be below {len(self)}, but is {row}")
        return f"{self._prefix}{self._middle(row)}{self._suffix}"

    def _middle(self, row: int) -> str:
        raise NotImplementedError


class _NumberedKeys(_Keys):
    """Numbers less their rows, padded with zeros to so many digits."""

    def __init__(self, prefix: str, suffix: str, digits: int, numbers: NDArray[np.int64]) -> None:
        super().__init__(prefix, suffix)
        self._digits, self._numbers = digits, numbers.data

    def __len__(self) -> int:
        return len(self._numbers)

    def _middle(self, row: int) -> str:
        return str(self._numbers[row] + row).zfill(self._digits)


class _WrittenKeys(_Keys):
    """Texts one after the other, each with its end."""

    def __init__(self, prefix: str, suffix: str, ends: NDArray[np.int64], heap: bytes) -> None:
        super().__init__(prefix, suffix)
        self._ends, self._heap = ends.data, heap

    def __len__(self) -> int:
        return len(self._ends)

    def _middle(self, row: int) -> str:
        start = self._ends[row - 1] if row else 0
        # Only a hostile index cuts a letter in two; its keys may read as they like.
        return self._heap[start : self._ends[row]].decode(errors="replace")
