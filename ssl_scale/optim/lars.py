"""LARS: each layer's gradient is scaled to the length of its weights; for large batches."""

from typing import Any

import torch
from torch import Tensor

from ssl_scale.optim.group import Group
from ssl_scale.optim.layerwise import Layerwise
from ssl_scale.optim.optimizer import LayerDecay, Optimizer
from ssl_scale.optim.schedule import Constant, Schedule
from ssl_scale.part import Given, NonNegative, Positive, Ratio, Whole

_WEIGHT_DECAY = Constant(1e-6)


class LARS(Optimizer):
    """Momentum on gradients that are scaled layer by layer.

    Paper: Large Batch Training of Convolutional Networks, arXiv 1708.03888, algorithm 1 (`trust` is
    eta). Differs, as the code of BYOL and of Barlow Twins does: the ratio is
    ``trust * |w| / |g + decay * w|``, the norm of the sum and not the sum of the norms; and the
    learning rate multiplies the momentum instead of going into it, so that it acts at once when it
    changes (the code of SimCLR puts it into it; at a constant rate both are the same). Biases,
    norms and tables are neither decayed nor scaled.

    Args:
        lr: learning rate over progress.
        weight_decay: over progress; only weights of two or more dimensions decay.
        momentum: share of the last step's direction.
        trust: length of a scaled gradient, as a share of its layer's weights'.
        clip: largest norm of the gradient of all parameters together; 0 means no clipping.
        groups: parameters that move otherwise than the rest.
        layer_decay: factor of the learning rate for each block further down an encoder's trunk.
        lr_per: samples of a global batch for which `lr` is meant: it is multiplied by
            ``global_batch / lr_per``; 0 leaves it as it is written.
        global_batch: samples of an optimizer step.
    """

    def __init__(
        self,
        lr: Schedule,
        weight_decay: Schedule = _WEIGHT_DECAY,
        momentum: Ratio = 0.9,
        trust: Positive = 1e-3,
        clip: NonNegative = 0.0,
        groups: tuple[Group, ...] = (),
        layer_decay: LayerDecay = 1.0,
        lr_per: Whole = 0,
        *,
        global_batch: Given[int] = 0,
    ) -> None:
        super().__init__(lr, weight_decay, clip, groups, layer_decay, lr_per, global_batch)
        self.momentum, self.trust = momentum, trust

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer that steps."""
        return LARSSteps(groups, {"momentum": self.momentum, "trust": self.trust})


class LARSSteps(Layerwise):
    """The arithmetic of `LARS`."""

    def direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient with its decay."""
        assert parameter.grad is not None
        return parameter.grad.add(parameter, alpha=group["weight_decay"])

    def ratio(self, weight: Tensor, update: Tensor, group: dict[str, Any]) -> Tensor:
        """The trust ratio."""
        scaled: Tensor = group["trust"] * weight / update
        return scaled

    def move(self, parameter: Tensor, direction: Tensor, group: dict[str, Any]) -> None:
        """Along the momentum."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
        parameter.sub_(state["momentum_buffer"], alpha=group["lr"])
