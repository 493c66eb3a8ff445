"""What learns the weights of a mixture: the losses of a round in, the weights of a later one out.

A round is so many steps with constant weights. Only rank 0 asks the rule; what it says is told to
everybody, and its state is in the checkpoint.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from ssl_scale.part import Part


class WeightRule(Part, ABC):
    """Learns weights; where two sources have losses of different kinds, it compares these."""

    @abstractmethod
    def start(self, weights: Mapping[str, float]) -> None:
        """Begin with the recipe's weights, which add up to 1."""

    @abstractmethod
    def learn(self, losses: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
        """The weights of a round to come.

        Args:
            losses: source -> mean loss over the round that has ended; without sources that it did
                not draw.
            weights: that this round was drawn with, which add up to 1.

        Returns:
            A weight of at least 0 for each source, not all of them 0; only ratios count.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What the rule has learned, as JSON."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
