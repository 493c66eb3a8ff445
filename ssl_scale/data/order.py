"""The order of a data set: a pure function from a position to a shard and a place in it.

One epoch of N samples: the shards are permuted by (seed, epoch) and laid end to end; that line is
cut into C contiguous streams whose lengths differ by at most one; inside each stream, blocks of
`window` samples are permuted. The blocks' boundaries shift from epoch to epoch. Position p is
element ``p // C`` of stream ``p mod C``: neighbours in a batch come from different places of the
data set, while each stream reads on in one shard. The longer streams are the first ones, so the
last ``N mod C`` positions fall on them by the same formula. A run is its epochs end to end.

The permutation of a block is a Feistel network on the next power of four, walked along its cycle
until it lands inside the block (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
2002): no buffer, no table, O(1) for any element. So nothing has to be saved to resume, and the
billionth position costs what the first one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_scale.data.seeds import Bits, Whole, combine

# Words that keep the three uses of the seed apart.
_SHARDS, _BOUNDARIES, _BLOCKS = 1, 2, 3
# Three rounds would do for a cipher on large domains (Luby and Rackoff); on the small ones of
# short blocks a few more are needed before every arrangement is about as likely.
_ROUNDS = 6


@dataclass(frozen=True)
class Place:
    """Where the samples at some positions are; all arrays ``[positions]``.

    Args:
        epoch: which pass over the data set.
        shard: number of the shard.
        row: place inside the shard.
    """

    epoch: Whole
    shard: Whole
    row: Whole


class Order:
    """The order of one data set in one run.

    Args:
        sizes: samples in each shard.
        seed: the order's key.
        streams: C above; more streams mix farther, and more shards are open at once.
        window: samples that are shuffled among themselves within a stream.
    """

    def __init__(
        self, sizes: Sequence[int], seed: int, streams: int = 64, window: int = 4096
    ) -> None:
        for name, value in (("streams", streams), ("window", window)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if not len(sizes) or min(sizes) < 1:
            raise ValueError(f"sizes must all be at least 1, but are {list(sizes)}")
        self.sizes = np.array(sizes, dtype=np.int64)
        self.seed, self.streams, self.window = seed, streams, window
        self._total = int(self.sizes.sum())
        self._lines: dict[int, tuple[Whole, Whole]] = {}

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self._total

    def locate(self, positions: Whole) -> Place:
        """Where the samples at these positions of the run are."""
        epoch, inside = np.divmod(positions, len(self))
        element, stream = np.divmod(inside, self.streams)
        shuffled = self._shuffle(epoch, stream, element)
        shard, row = np.empty_like(epoch), np.empty_like(epoch)
        for each in np.unique(epoch):
            chosen = epoch == each
            line = self._stream_start(stream[chosen]) + shuffled[chosen]
            shards, starts = self._line(int(each))
            place = np.searchsorted(starts, line, side="right") - 1
            shard[chosen], row[chosen] = shards[place], line - starts[place]
        return Place(epoch, shard, row)

    def rest_of_block(self, position: int) -> Whole:
        """The other positions of a position's block, from the next one on, around its end."""
        epoch, inside = divmod(position, len(self))
        element, stream = divmod(inside, self.streams)
        start, size, _ = self._block(*(np.array([value]) for value in (epoch, stream, element)))
        others = (element - start + np.arange(1, size[0])) % size + start
        return epoch * len(self) + others * self.streams + stream

    def _stream_start(self, stream: Whole) -> Whole:
        length, longer = divmod(len(self), self.streams)
        return stream * length + np.minimum(stream, longer)

    def _block(self, epoch: Whole, stream: Whole, element: Whole) -> tuple[Whole, Whole, Whole]:
        """Start, size and number, within its stream, of each element's block."""
        length, longer = divmod(len(self), self.streams)
        shift = combine(self.seed, _BOUNDARIES, epoch) % np.uint64(self.window)
        first_end = self.window - shift.astype(np.int64)
        block = (element - first_end + self.window) // self.window
        start = np.maximum(first_end + (block - 1) * self.window, 0)
        end = np.minimum(first_end + block * self.window, length + (stream < longer))
        return start, end - start, block

    def _shuffle(self, epoch: Whole, stream: Whole, element: Whole) -> Whole:
        start, size, block = self._block(epoch, stream, element)
        keys = combine(self.seed, _BLOCKS, epoch, stream, block)
        return start + permute(element - start, size, keys)

    def _line(self, epoch: int) -> tuple[Whole, Whole]:
        """An epoch's shards in their order, and where each of them starts."""
        if epoch not in self._lines:
            while len(self._lines) > 1:  # a batch straddles two epochs at most, unless data is tiny
                self._lines.pop(next(iter(self._lines)))
            shards = np.argsort(
                combine(self.seed, _SHARDS, epoch, np.arange(len(self.sizes))), kind="stable"
            )
            self._lines[epoch] = shards, np.cumsum(self.sizes[shards]) - self.sizes[shards]
        return self._lines[epoch]


class StoredOrder:
    """The shards as they lie, again and again: for passes that only measure.

    Args:
        sizes: samples in each shard.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._starts = np.concatenate(([0], np.cumsum(np.array(sizes, dtype=np.int64))))

    def __len__(self) -> int:
        """Samples in an epoch."""
        return int(self._starts[-1])

    def locate(self, positions: Whole) -> Place:
        """Where the samples at these positions are."""
        epoch, inside = np.divmod(positions, len(self))
        shard = np.searchsorted(self._starts, inside, side="right") - 1
        return Place(epoch, shard, inside - self._starts[shard])

    def rest_of_block(self, position: int) -> Whole:
        """None: nothing takes another sample's place."""
        return np.empty(0, dtype=np.int64)


def permute(indices: Whole, sizes: Whole, keys: Bits) -> Whole:
    """Send each index to another place of ``range(size)``, one-to-one for a given key and size.

    Args:
        indices: in ``[0, size)``.
        sizes: length of the range that each index lives in.
        keys: equal keys and sizes mean the same permutation.
    """
    values = indices.astype(np.uint64)
    limits = sizes.astype(np.uint64)
    bits = np.frexp((sizes - 1).astype(np.float64))[1]
    halves = np.maximum((bits + 1) // 2, 1).astype(np.uint64)
    walking = np.arange(len(values))
    while len(walking):
        values[walking] = _feistel(values[walking], halves[walking], keys[walking])
        walking = walking[values[walking] >= limits[walking]]
    return values.astype(np.int64)


def _feistel(values: Bits, halves: Bits, keys: Bits) -> Bits:
    """A permutation of ``range(4 ** half)`` for each value."""
    low = (np.uint64(1) << halves) - np.uint64(1)
    left, right = values >> halves, values & low
    for turn in range(_ROUNDS):
        # Keys are hashes, so neighbours of a key are as good as others.
        left, right = right, left ^ (combine(keys + np.uint64(turn), right) & low)
    return (left << halves) | right
