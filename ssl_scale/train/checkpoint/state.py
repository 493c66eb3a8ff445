"""Counters and descriptions that a checkpoint carries beside its tensors."""

from collections.abc import Callable
from typing import Any

from ssl_scale.train.module import PretrainingModule


class StateSource:
    """Gives the state that a checkpoint's COMMIT carries.

    Args:
        fixed: what does not change during a run.
        module: whose counters to take.
        mixture: gives the mixture's state after so many steps of data.
    """

    def __init__(
        self,
        fixed: dict[str, Any],
        module: PretrainingModule,
        mixture: Callable[[int], dict[str, Any]],
    ) -> None:
        self.fixed = fixed
        self.module = module
        self.mixture = mixture

    def __call__(self) -> dict[str, Any]:
        """The state as of now."""
        progress = self.module.progress
        counters = {"done": progress.done, "passed": progress.passed, "total": progress.total}
        held = {"mixture": self.mixture(progress.drawn), "guard": self.module.guard.state_dict()}
        return self.fixed | counters | held
