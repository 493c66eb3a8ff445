"""Who makes what of a step: its samples over micro-batches and ranks.

Micro-batches are runs of a source's samples, ranks take every W-th sample of a run: strides rather
than runs, since then a rank stays within its own streams where W divides both their number and the
batch (see `Order`). Where numbers do not divide, what is left over goes round: each source carries
on where the one before it stopped, so that ranks differ by a sample a micro-batch at most. Which
sources a micro-batch holds is the same on every rank.

Sources whose samples have lengths get micro-batches of their own, by tokens (`budget`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ssl_scale.data.budget import bucket, pack
from ssl_scale.data.lengths import Lengths
from ssl_scale.data.mixture import Share
from ssl_scale.data.seeds import Whole


@dataclass(frozen=True)
class Budget:
    """Micro-batches by tokens.

    Args:
        max_tokens: tokens of a source that a rank takes in one micro-batch.
        lengths: source -> its samples' lengths.
        packed: those of the sources whose samples are laid end to end instead of padded.
    """

    max_tokens: int
    lengths: Mapping[str, Lengths]
    packed: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Part:
    """A rank's samples of one source in one micro-batch.

    Args:
        source: its name.
        positions: in the source's order; none where there are fewer samples than ranks.
        packed: the field whose values are laid end to end, if one is.
    """

    source: str
    positions: Whole
    packed: str | None = None

    @property
    def rows(self) -> int:
        """Rows of the batch: no axis is empty, so one of padding stands for none."""
        return max(1, len(self.positions))


@dataclass(frozen=True, eq=False)
class StepPlan:
    """A rank's part of a step.

    Args:
        micros: the parts of each micro-batch; equally many on each rank, of the same sources.
        tokens: of samples with lengths, over all ranks.
        places: for these tokens, padding and waiting included.
    """

    micros: list[list[Part]]
    tokens: int = 0
    places: int = 0


@dataclass(frozen=True)
class Splitter:
    """Splits steps.

    Args:
        accumulate: micro-batches of the sources without lengths.
        rank: whose parts.
        world_size: how many ranks there are.
        budget: of the sources with lengths.
    """

    accumulate: int
    rank: int
    world_size: int
    budget: Budget = field(default_factory=lambda: Budget(1, {}))

    def split(self, shares: Sequence[Share]) -> StepPlan:
        """The rank's parts of what a step takes."""
        measured = self.budget.lengths
        even = [share for share in shares if share.source not in measured]
        micros = [self._micro(even, micro) for micro in range(self.accumulate)]
        tokens = places = 0
        for share in (share for share in shares if share.source in measured):
            positions = share.start + np.arange(share.count, dtype=np.int64)
            lengths = measured[share.source].at(positions)
            is_packed = share.source in self.budget.packed
            deal = pack if is_packed else bucket
            plan = deal(lengths, self.budget.max_tokens, self.world_size)
            packed = measured[share.source].field if is_packed else None
            micros += [
                [Part(share.source, positions[ranks[self.rank]], packed)] for ranks in plan.groups
            ]
            tokens, places = tokens + plan.tokens, places + plan.places
        return StepPlan([parts for parts in micros if parts], tokens, places)

    def _micro(self, shares: Sequence[Share], micro: int) -> list[Part]:
        parts, drawn, dealt = [], 0, 0
        for share in shares:
            carried = drawn % self.accumulate
            first = (micro * share.count + carried) // self.accumulate
            end = ((micro + 1) * share.count + carried) // self.accumulate
            if end > first:
                turn = (self.rank - dealt) % self.world_size
                own = np.arange(first + turn, end, self.world_size, dtype=np.int64)
                parts.append(Part(share.source, share.start + own))
            drawn += share.count
            dealt += end - first
        return parts
