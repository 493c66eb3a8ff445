"""Weights over the draws of a run: stretches in which they do not change."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ssl_scale.data.mixture.shares import LONGEST_PERIOD
from ssl_scale.errors import RecipeError

# A schedule is followed in so many steps of a staircase.
_STAIRS = 100


@dataclass(frozen=True)
class Stretch:
    """Draws with constant weights.

    Args:
        length: how many; None for without end.
        weights: source -> weight of at least 0, not all of them 0.
    """

    length: int | None
    weights: Mapping[str, float]


class Weights(ABC):
    """Source -> weight, for every draw.

    Attributes:
        names: of the sources.
    """

    names: tuple[str, ...]

    @abstractmethod
    def stretch(self, number: int) -> Stretch:
        """The stretch of this number, from 0; asked for in order, up to one without end."""


class ConstantWeights(Weights):
    """The same weights throughout.

    Args:
        weights: source -> weight above 0; only their ratios count.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.names, self.weights = tuple(weights), dict(weights)

    def stretch(self, number: int) -> Stretch:
        """All draws."""
        return Stretch(None, self.weights)


class ScheduledWeights(Weights):
    """Weights that follow schedules, as a staircase of a hundred steps of equal length.

    Args:
        schedules: source -> weight of at least 0 at a fraction of training.
        num_draws: of the whole run.
        first: draws of the run before the first one here.
    """

    def __init__(
        self, schedules: Mapping[str, Callable[[float], float]], num_draws: int, first: int = 0
    ) -> None:
        self.names, self.schedules = tuple(schedules), dict(schedules)
        self.num_draws, self.first = num_draws, first
        length = -(-num_draws // _STAIRS)
        # Long ones hold whole periods of the longest schedule of turns.
        periods = -(-length // LONGEST_PERIOD)
        self.length = length if periods == 1 else periods * LONGEST_PERIOD

    def stretch(self, number: int) -> Stretch:
        """A step of the staircase, as high as the schedules in its middle."""
        start = self.first + number * self.length
        if start >= self.num_draws:
            return Stretch(None, self._at(1.0))
        return Stretch(self.length, self._at((start + self.length / 2) / self.num_draws))

    def _at(self, progress: float) -> dict[str, float]:
        progress = min(progress, 1.0)
        weights = {name: schedule(progress) for name, schedule in self.schedules.items()}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise RecipeError(
                    f"source {name!r}: weight must be at least 0 throughout, but is {weight:g} at "
                    f"progress {progress:.3f}"
                )
        if not any(weights.values()):
            raise RecipeError(
                "some source must have a weight above 0 throughout, but none has at progress "
                f"{progress:.3f}"
            )
        return weights
