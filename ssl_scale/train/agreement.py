"""Finds out, within a collective that is made anyway, whether all ranks take the same step.

Ranks that do not would train something else in silence: ZeRO-1 and 2 add up gradients by their
place in a bucket, ZeRO-3 gathers parameters by their place in a trace.
"""

import zlib
from collections.abc import Sequence

from ssl_scale import dist
from ssl_scale.errors import SslScaleError

_MASK = (1 << 20) - 1  # sums of squares stay exact in float64 up to 4,096 ranks


class Agreement:
    """What this rank takes in a step.

    Args:
        sources: of each micro-batch, the sources of its batches.
    """

    def __init__(self, sources: Sequence[Sequence[str]]) -> None:
        self.sources = [list(micro) for micro in sources]
        self._mark = zlib.crc32(repr(self.sources).encode()) & _MASK

    @property
    def summands(self) -> tuple[int, int]:
        """What is to be summed over ranks, in float64."""
        return self._mark, self._mark**2

    def check(self, sums: Sequence[float], step: int) -> None:
        """Look at the sums: numbers are all equal where n x the squares' sum is the sum's square.

        Raises:
            SslScaleError: on all ranks, that some take other sources than most.
        """
        total, squares = map(int, sums)
        if dist.world_size() * squares == total**2:
            return
        taken = [_told(sources) for sources in dist.gather_objects(self.sources)]
        usual = max(taken, key=taken.count)
        others = [f"rank {rank} takes {told}" for rank, told in enumerate(taken) if told != usual]
        more = f", and {len(others) - 3} more ranks differ" if len(others) > 3 else ""
        raise SslScaleError(
            f"step {step}: all ranks must take batches of the same sources, but while rank "
            f"{taken.index(usual)} takes {usual}, {', '.join(others[:3])}{more}; start every rank "
            "with the same recipe, data and version of this package"
        )


def _told(sources: Sequence[Sequence[str]]) -> str:
    return " then ".join(" + ".join(micro) or "nothing" for micro in sources) or "nothing"
