"""Each source's mean loss over many steps, reduced over ranks when it is asked for."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_scale import dist

# source -> objective -> sum and count of its loss, over all ranks.
Sums = dict[str, dict[str, tuple[float, float]]]


class SourceLoss(NamedTuple):
    """An objective's loss on one batch of this rank.

    Attributes:
        source: of the batch.
        objective: its name.
        total: scalar; sum of the loss over the batch's items.
        items: scalar; how many there are.
    """

    source: str
    objective: str
    total: Tensor
    items: Tensor


class SourceLosses:
    """Adds up losses by source and objective, without synchronising until they are read.

    Args:
        feeds: source -> objectives that its batches feed; the same on all ranks.
    """

    def __init__(self, feeds: Mapping[str, Iterable[str]]) -> None:
        self._pairs = [(name, each) for name, objectives in feeds.items() for each in objectives]
        self._read = torch.zeros(len(self._pairs), 2, dtype=torch.float64)
        self._local: dict[tuple[str, str], Tensor] = {}

    def add(self, losses: Iterable[SourceLoss]) -> None:
        """Take a step's losses."""
        for loss in losses:
            pair = loss.source, loss.objective
            value = torch.stack([loss.total.detach().double(), loss.items.double()])
            self._local[pair] = self._local[pair] + value if pair in self._local else value

    def sums(self) -> Sums:
        """All there is since the last `clear`, over all ranks. A collective."""
        if self._local:  # ranks draw the same sources, so on all of them or on none
            nothing = torch.zeros_like(next(iter(self._local.values())))
            local = torch.stack([self._local.get(pair, nothing) for pair in self._pairs])
            self._read, self._local = self._read + dist.reduce(local).cpu(), {}
        found: Sums = {}
        for (source, objective), (total, count) in zip(
            self._pairs, self._read.tolist(), strict=True
        ):
            if count:
                found.setdefault(source, {})[objective] = total, count
        return found

    def load(self, sums: Mapping[str, Mapping[str, Iterable[float]]]) -> None:
        """Go on from saved sums."""
        rows = [sums.get(source, {}).get(objective, (0, 0)) for source, objective in self._pairs]
        self._read = torch.tensor([list(row) for row in rows], dtype=torch.float64)

    def clear(self) -> None:
        """Begin anew."""
        self._read, self._local = torch.zeros_like(self._read), {}
