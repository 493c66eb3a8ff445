"""Groups of parameters that do not move during the first part of training.

While a group is frozen its gradients are zero, so that they do not count in the norm by which
others are clipped, and the optimizer passes it over: moments, step counters and weight decay stand
still as well. `requires_grad` stays as it is, since DeepSpeed looks at it only once.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Where a group's parameters are kept while the optimizer passes it over.
_KEPT = "kept_params"


@dataclass
class Freeze:
    """How long a group is frozen, and whether it is now.

    Args:
        until: up to 1 a fraction of training, above a number of optimizer steps.
        is_on: in this step.
    """

    until: float
    is_on: bool = True

    def lasts(self, progress: float, index: int) -> bool:
        """Whether the group is frozen at a fraction of training, after so many steps."""
        return (progress if self.until <= 1 else index) < self.until

    def hold(self, parameter: nn.Parameter) -> None:
        """Zero the parameter's gradients while the freeze lasts."""

        def zeroed(gradient: Tensor) -> Tensor:
            return torch.zeros_like(gradient) if self.is_on else gradient

        parameter.register_hook(zeroed)  # type: ignore[no-untyped-call]


def leave_frozen(optimizer: torch.optim.Optimizer) -> None:
    """Let the optimizer pass over frozen groups."""
    if any(group["freeze"] is not None for group in optimizer.param_groups):
        optimizer.register_step_pre_hook(_take_away)
        optimizer.register_step_post_hook(_put_back)


# DeepSpeed steps with one group at a time, whose tensors it has put in place of the parameters.
def _take_away(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        if group["freeze"] is not None and group["freeze"].is_on:
            group[_KEPT], group["params"] = group["params"], []


def _put_back(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        if _KEPT in group:
            group["params"] = group.pop(_KEPT)
