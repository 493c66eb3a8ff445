"""LAMB: Adam's direction, scaled to the length of each layer's weights; for large batches."""

from typing import Any

import torch
from torch import Tensor

from ssl_scale.optim.group import Group
from ssl_scale.optim.layerwise import Layerwise
from ssl_scale.optim.optimizer import LayerDecay, Optimizer
from ssl_scale.optim.schedule import Constant, Schedule
from ssl_scale.part import Given, NonNegative, Positive, Probability, Whole

_WEIGHT_DECAY = Constant(0.01)


class LAMB(Optimizer):
    """Adam whose step in each layer is as long as the layer's weights, times the learning rate.

    Paper: Large Batch Optimization for Deep Learning, arXiv 1904.00962, algorithm 2 (phi is the
    identity). As in the authors' code, biases, norms and tables are neither decayed nor scaled.

    Args:
        lr: learning rate over progress.
        weight_decay: over progress; only weights of two or more dimensions decay.
        betas: decay rates of the first and the second moment.
        eps: added to the root of the second moment.
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
        betas: tuple[Probability, Probability] = (0.9, 0.999),
        eps: Positive = 1e-6,
        clip: NonNegative = 0.0,
        groups: tuple[Group, ...] = (),
        layer_decay: LayerDecay = 1.0,
        lr_per: Whole = 0,
        *,
        global_batch: Given[int] = 0,
    ) -> None:
        super().__init__(lr, weight_decay, clip, groups, layer_decay, lr_per, global_batch)
        self.betas, self.eps = betas, eps

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer that steps."""
        return LAMBSteps(groups, {"betas": self.betas, "eps": self.eps})


class LAMBSteps(Layerwise):
    """The arithmetic of `LAMB`."""

    def direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """Adam's, with the decay."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "step" not in state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step, (first, second) = int(state["step"]), group["betas"]
        mean = state["exp_avg"].lerp_(gradient, 1 - first)
        square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = square.div(1 - second**step).sqrt_().add_(group["eps"])
        direction: Tensor = mean.div(1 - first**step).div_(root)
        return direction.add_(parameter, alpha=group["weight_decay"])

    def ratio(self, weight: Tensor, update: Tensor, group: dict[str, Any]) -> Tensor:
        """The trust ratio."""
        return weight / update

    def move(self, parameter: Tensor, direction: Tensor, group: dict[str, Any]) -> None:
        """Along the direction."""
        parameter.sub_(direction, alpha=group["lr"])
