"""Decides whether a step may be taken: the divergence guard.

All that it looks at is equal on all ranks, and so is what it decides.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from ssl_scale.recipe.guard_plan import GuardPlan

Outcome: TypeAlias = Literal["taken", "skipped", "spiked"]

# Of a normal distribution, what the median absolute deviation must be multiplied by.
_MAD_TO_SIGMA = 1.4826
# Losses that hardly differ are no measure of how far one may lie off.
_SMALLEST_SIGMA = 1e-3


class Guard:
    """What a run remembers of its recent losses.

    Args:
        plan: the recipe's.

    Attributes:
        skipped: steps left out so far, or gone back over.
        in_a_row: of them, those just now.
        rollbacks: how often this start of the run has gone back.
        may_go_back: whether there is a checkpoint to go back to; without one no loss is a spike.
    """

    def __init__(self, plan: GuardPlan) -> None:
        self.plan = plan
        self.skipped = self.in_a_row = self.rollbacks = 0
        self.may_go_back = False
        self._recent: dict[str, list[float]] = {}

    @property
    def watches_losses(self) -> bool:
        """Whether it wants to know the loss of each step."""
        return self.plan.spike is not None

    def is_spike(self, objectives: Sequence[str], loss: float) -> bool:
        """Whether a finite loss lies too far above those of recent steps.

        Args:
            objectives: of the step; losses of others are not compared with it.
            loss: over all ranks.
        """
        recent = self._recent.get(_kind(objectives), [])
        if self.plan.spike is None or not self.may_go_back or not math.isfinite(loss):
            return False
        if len(recent) < max(self.plan.window // 2, 1):
            return False
        centre = statistics.median(recent)
        deviation = statistics.median(abs(value - centre) for value in recent)
        sigma = max(_MAD_TO_SIGMA * deviation, _SMALLEST_SIGMA * abs(centre))
        return loss > centre + self.plan.spike * sigma

    def took(self, objectives: Sequence[str], loss: float | None) -> None:
        """A step was taken."""
        self.in_a_row = 0
        if loss is not None:
            recent = self._recent.setdefault(_kind(objectives), [])
            recent.append(loss)
            del recent[: -self.plan.window]

    def left_out(self) -> None:
        """A step was left out."""
        self.skipped += 1
        self.in_a_row += 1

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs, to decide as the run would have."""
        recent = {kind: list(losses) for kind, losses in self._recent.items()}
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "recent": recent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.skipped, self.in_a_row = state.get("skipped", 0), state.get("in_a_row", 0)
        self._recent = {kind: list(losses) for kind, losses in state.get("recent", {}).items()}


def _kind(objectives: Sequence[str]) -> str:
    return " ".join(sorted(objectives))
