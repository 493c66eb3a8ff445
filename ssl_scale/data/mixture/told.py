"""Weights that become known while training goes on, in the trainer and in its loader's workers.

They lie in memory that these processes share: a row for each stretch of draws. Whoever needs a row
that is not there yet waits for it. The trainer tells a stretch long before it is needed, so that it
never waits itself, and workers do only if they may run further ahead than a stretch is long.
"""

import multiprocessing
import time
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch.utils.data import get_worker_info

from ssl_scale.data.mixture.shares import LONGEST_PERIOD, apportion
from ssl_scale.data.mixture.stretches import Stretch, Weights
from ssl_scale.errors import DataError

# Longer than any validation pass; a trainer that hangs is ended by its collectives long before.
_LONGEST_WAIT_S = 6 * 3600.0
_POLL_S = 0.01


class ToldWeights(Weights):
    """Weights of stretches of equal length, as shares of ten thousand.

    Args:
        names: of the sources.
        length: draws of a stretch.
        num_stretches: how many will be told at most.
        factors: source -> what its weight is multiplied by to count draws.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        length: int,
        num_stretches: int,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        self.names, self.length = names, length
        self.factors = {name: Fraction((factors or {}).get(name, 1.0)) for name in names}
        # Shares are at least 1: a row without a 0 is whole, whatever order it was written in.
        self._table = torch.zeros(num_stretches, len(names), dtype=torch.int16)
        self._table.share_memory_()  # type: ignore[no-untyped-call]

    def tell(self, number: int, shares: Mapping[str, int]) -> None:
        """Make a stretch's weights known: of each source at least 1, ten thousand together."""
        self._table[number] = torch.tensor([shares[n] for n in self.names], dtype=torch.int16)

    def told(self, number: int) -> dict[str, int] | None:
        """A stretch's shares, if they are known."""
        row = self._table[number].tolist()
        return dict(zip(self.names, row, strict=True)) if all(row) else None

    def stretch(self, number: int) -> Stretch:
        """A stretch, as soon as it is told.

        Raises:
            DataError: in a worker, the trainer has ended or told nothing for hours.
        """
        shares = self.told(number) or self._wait(number)
        scaled = {name: share * self.factors[name] for name, share in shares.items()}
        return Stretch(self.length, apportion(scaled, LONGEST_PERIOD))

    def _wait(self, number: int) -> dict[str, int]:
        assert get_worker_info() is not None, f"the trainer must have told stretch {number} itself"
        trainer, until = multiprocessing.parent_process(), time.monotonic() + _LONGEST_WAIT_S
        while time.monotonic() < until and trainer is not None and trainer.is_alive():
            if (shares := self.told(number)) is not None:
                return shares
            time.sleep(_POLL_S)
        raise DataError(
            f"learned weights must come from the trainer within {_LONGEST_WAIT_S:g} s, but those "
            f"of round {number} of this start did not; start again: the newest checkpoint is sound"
        )
