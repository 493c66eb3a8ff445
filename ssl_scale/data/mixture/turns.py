"""Whose turn it is, where sources have whole shares of a period.

The period's schedule is worked out once, so that after *any* number of draws each source's count is
within one of its due. That is proportionate fairness: unit j of a source with share w of P must
come after draw ``floor(j P / w)`` and no later than draw ``ceil((j + 1) P / w)``; taking the
earliest deadline first always manages (Baruah, Cohen, Plaxton and Varvel, "Proportionate progress",
Algorithmica 15, 1996). The number of the draw says how far each source has got.
"""

import heapq
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ssl_scale.data.seeds import Whole, combine


class Turns:
    """An endless schedule of sources, by their places.

    Args:
        shares: of each source, above 0.
        seed: decides who goes first where the shares leave it open.
    """

    def __init__(self, shares: tuple[int, ...], seed: int) -> None:
        self.shares, self.seed = shares, seed
        self.period = sum(shares)

    def before(self, draw: int) -> Whole:
        """How often each source came before a draw."""
        periods, rest = divmod(draw, self.period)
        whole = periods * np.array(self.shares, dtype=np.int64)
        return whole + _counts(self.shares, self.seed)[rest] if rest else whole

    def when(self, place: int, unit: int) -> int:
        """The draw that is a source's unit of this number, from 0."""
        periods, rest = divmod(unit, self.shares[place])
        counts = _counts(self.shares, self.seed)[:, place]
        return periods * self.period + int(np.searchsorted(counts, rest, side="right")) - 1


@lru_cache(maxsize=16)
def _counts(shares: tuple[int, ...], seed: int) -> NDArray[np.int32]:
    """Each source's count before each draw of a period, ``[period + 1, sources]``."""
    period = sum(shares)
    # Equal deadlines go by a shuffled rank, so that no source leads just by its name.
    ranks = combine(seed, np.arange(len(shares))).argsort().argsort().tolist()
    waiting = [(0, rank, place, 0) for place, rank in enumerate(ranks)]
    ready: list[tuple[int, int, int, int]] = []
    turns = np.empty(period, dtype=np.int32)
    for draw in range(period):
        while waiting and waiting[0][0] <= draw:
            _, rank, place, unit = heapq.heappop(waiting)
            deadline = -(-(unit + 1) * period // shares[place])
            heapq.heappush(ready, (deadline, rank, place, unit))
        _, rank, place, unit = heapq.heappop(ready)
        turns[draw] = place
        release = (unit + 1) * period // shares[place]
        heapq.heappush(waiting, (release, rank, place, unit + 1))
    counts = np.zeros((period + 1, len(shares)), dtype=np.int32)
    np.cumsum(turns[:, None] == np.arange(len(shares)), axis=0, out=counts[1:])
    return counts
