"""Who makes what of a step: its samples over micro-batches and ranks.

Micro-batches are runs of a source's samples, ranks take every W-th sample of a run: strides rather
than runs, since then a rank stays within its own streams where W divides both their number and the
batch (see `Order`). Where numbers do not divide, what is left over goes round: each source carries
on where the one before it stopped, so that ranks differ by a sample a micro-batch at most. Which
sources a micro-batch holds is the same on every rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_scale.data.mixture import Share
from ssl_scale.data.seeds import Whole


@dataclass(frozen=True, eq=False)
class Part:
    """A rank's samples of one source in one micro-batch.

    Args:
        source: its name.
        positions: in the source's order; none where there are fewer samples than ranks.
    """

    source: str
    positions: Whole

    @property
    def rows(self) -> int:
        """Rows of the batch: no axis is empty, so one of padding stands for none."""
        return max(1, len(self.positions))


def split_step(
    shares: Sequence[Share], accumulate: int, rank: int, world_size: int
) -> list[list[Part]]:
    """A rank's parts of each micro-batch."""
    return [_micro(shares, micro, accumulate, rank, world_size) for micro in range(accumulate)]


def _micro(
    shares: Sequence[Share], micro: int, accumulate: int, rank: int, world_size: int
) -> list[Part]:
    parts, drawn, dealt = [], 0, 0
    for share in shares:
        carried = drawn % accumulate
        first = (micro * share.count + carried) // accumulate
        end = ((micro + 1) * share.count + carried) // accumulate
        if end > first:
            turn = (rank - dealt) % world_size
            own = np.arange(first + turn, end, world_size, dtype=np.int64)
            parts.append(Part(share.source, share.start + own))
        drawn += share.count
        dealt += end - first
    return parts
