"""An epoch's shards end to end: which shard, and which of its rows, stands at a place of the line.

The shards' order is a keyed bijection, so none of it is stored. Where the shards' sizes differ, the
start of every 64th shard is: 8 bytes for 64 shards. Starts between those are worked out where they
are needed, and the latest kept: the streams of an order read on in a few places of the line.
"""

import numpy as np
from numpy.typing import NDArray

from ssl_scale.data.permutation import permute
from ssl_scale.data.seeds import Bits, Whole

GROUP = 64
# Groups kept worked out: 16 bytes a shard, so 2 MB.
_MOST_GROUPS = 2048
# Shards worked out at once while the starts are found: bounds what that takes.
_CHUNK = 1 << 16


class ShardLine:
    """One epoch's line.

    Args:
        sizes: samples in each shard, none of them 0.
        key: of the shards' order; None for the order in which they are numbered.
    """

    def __init__(self, sizes: NDArray[np.integer], key: Bits | None) -> None:
        self._sizes, self._key = sizes, key
        self._equal = int(sizes[0]) if (sizes == sizes[0]).all() else 0
        if not self._equal:
            self._group_starts = self._sum_groups()
            self._forget()

    def locate(self, offsets: Whole) -> tuple[Whole, Whole]:
        """Shard and row at each offset of the line."""
        if self._equal:
            places, rows = np.divmod(offsets, self._equal)
            return self._shards_at(places), rows
        groups = np.searchsorted(self._group_starts, offsets, side="right") - 1
        self._work_out(np.unique(groups))
        # Starts rise from group to group, so those known are searched as one.
        known = np.searchsorted(self._starts, offsets, side="right") - 1
        return self._shards[known], offsets - self._starts[known]

    def _shards_at(self, places: Whole) -> Whole:
        if self._key is None:
            return places
        count = np.full(len(places), len(self._sizes))
        return permute(places, count, np.repeat(self._key, len(places)))

    def _sum_groups(self) -> Whole:
        """Where each group of shards starts."""
        sums = []
        for first in range(0, len(self._sizes), _CHUNK):
            places = np.arange(first, min(first + _CHUNK, len(self._sizes)))
            sizes = self._sizes[self._shards_at(places)].astype(np.int64)
            sums.append(np.add.reduceat(sizes, np.arange(0, len(sizes), GROUP)))
        return np.concatenate(([0], np.cumsum(np.concatenate(sums))[:-1]))

    def _forget(self) -> None:
        self._groups = np.empty(0, dtype=np.int64)
        self._shards = np.empty(0, dtype=np.int64)
        self._starts = np.empty(0, dtype=np.int64)

    def _work_out(self, groups: Whole) -> None:
        """Make sure that the starts in these groups are known."""
        missing = np.setdiff1d(groups, self._groups, assume_unique=True)
        if not len(missing):
            return
        if len(self._groups) + len(missing) > _MOST_GROUPS:
            self._forget()
            missing = groups
        places = missing[:, None] * GROUP + np.arange(GROUP)
        inside = places < len(self._sizes)
        shards = np.zeros_like(places)
        shards[inside] = self._shards_at(places[inside])
        # Places beyond the last shard start where the line ends, which no offset reaches.
        sizes = np.where(inside, self._sizes[shards], 0).astype(np.int64)
        starts = self._group_starts[missing][:, None] + sizes.cumsum(axis=1) - sizes
        groups = np.concatenate([self._groups, missing])
        order = np.argsort(groups)
        self._groups = groups[order]
        self._shards = self._sorted(self._shards, shards, order)
        self._starts = self._sorted(self._starts, starts, order)

    @staticmethod
    def _sorted(known: Whole, new: Whole, order: Whole) -> Whole:
        return np.concatenate([known.reshape(-1, GROUP), new])[order].ravel()
