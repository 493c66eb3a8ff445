"""Sums of losses and metrics between two lines of the log, reduced over ranks in one collective."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssl_scale import dist
from ssl_scale.types import Loss


class Tally:
    """Adds up (sum, count) pairs by name, without synchronising until it is read."""

    def __init__(self) -> None:
        self._local: dict[str, Tensor] = {}
        self._global: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Loss]) -> None:
        """Take one micro-batch's losses. Losses are divided by global counts, given in `step`."""
        for name, loss in losses.items():
            self._add(f"loss/{name}", loss.total)
            for metric, (total, count) in loss.metrics.items():
                self._add(f"{metric}/{name}", total)
                self._add(f"{metric}/{name}#", count)

    def step(self, counts: Mapping[str, Tensor]) -> None:
        """Take the step's denominators, already summed over ranks and micro-batches."""
        for name, count in counts.items():
            held = self._global.get(f"loss/{name}")
            self._global[f"loss/{name}"] = count if held is None else held + count

    def read(self) -> dict[str, float]:
        """Means since the last reading, over all ranks; a name without items is left out.

        A collective: ranks draw the same sources, so they hold the same names.
        """
        if not self._local:
            return {}
        names = sorted(self._local)
        sums = dist.reduce(torch.stack([self._local[name] for name in names])).tolist()
        totals = dict(zip(names, sums, strict=True))
        counts = {name: float(count) for name, count in self._global.items()}
        self._local, self._global = {}, {}
        means: dict[str, float] = {}
        for name, total in totals.items():
            if name.endswith("#"):
                continue
            count = counts[name] if name in counts else totals[f"{name}#"]
            if count:
                means[name] = total / count
        return means

    def _add(self, name: str, value: Tensor) -> None:
        value = value.detach().to(torch.float64)
        held = self._local.get(name)
        self._local[name] = value if held is None else held + value
