"""The order of a data set: a pure function from a position to a shard and a place in it.

One epoch of N samples: the shards are permuted by (seed, epoch) and laid end to end; that line is
cut into C contiguous streams whose lengths differ by at most one; inside each stream, blocks of
`window` samples are permuted. The blocks' boundaries shift from epoch to epoch. Position p is
element ``p // C`` of stream ``p mod C``: neighbours in a batch come from different places of the
data set, while each stream reads on in one shard. The longer streams are the first ones, so the
last ``N mod C`` positions fall on them by the same formula. A run is its epochs end to end.

Both permutations are keyed bijections (`permutation`): no buffer, no table, O(1) for any element.
So nothing has to be saved to resume, and the billionth position costs what the first one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssl_scale.data.line import ShardLine
from ssl_scale.data.permutation import permute
from ssl_scale.data.seeds import Whole, combine

# Words that keep the three uses of the seed apart.
_SHARDS, _BOUNDARIES, _BLOCKS = 1, 2, 3

Sizes: TypeAlias = Sequence[int] | NDArray[np.integer]


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

    def __init__(self, sizes: Sizes, seed: int, streams: int = 64, window: int = 4096) -> None:
        for name, value in (("streams", streams), ("window", window)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        self.sizes, self._total = _require_sizes(sizes)
        self.seed, self.streams, self.window = seed, streams, window
        self._lines: dict[int, ShardLine] = {}

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
            shard[chosen], row[chosen] = self._line(int(each)).locate(line)
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

    def _line(self, epoch: int) -> ShardLine:
        if epoch not in self._lines:
            while len(self._lines) > 1:  # a batch straddles two epochs at most, unless data is tiny
                self._lines.pop(next(iter(self._lines)))
            self._lines[epoch] = ShardLine(self.sizes, combine(self.seed, _SHARDS, epoch))
        return self._lines[epoch]


class StoredOrder:
    """The shards as they lie, again and again: for passes that only measure.

    Args:
        sizes: samples in each shard.
    """

    streams = 1

    def __init__(self, sizes: Sizes) -> None:
        self.sizes, self._total = _require_sizes(sizes)
        self._line = ShardLine(self.sizes, None)

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self._total

    def locate(self, positions: Whole) -> Place:
        """Where the samples at these positions are."""
        epoch, inside = np.divmod(positions, len(self))
        return Place(epoch, *self._line.locate(inside))

    def rest_of_block(self, position: int) -> Whole:
        """None: nothing takes another sample's place."""
        return np.empty(0, dtype=np.int64)


def _require_sizes(sizes: Sizes) -> tuple[NDArray[np.integer], int]:
    """The sizes as an array, not copied if they are one, and their sum."""
    array = np.asarray(sizes)
    if not len(array) or array.min() < 1:
        raise ValueError(f"sizes must all be at least 1, but are {array}")
    return array, int(array.sum(dtype=np.int64))
