"""Gradient descent with momentum."""

from typing import Any

import torch

from ssl_scale.optim.group import Group
from ssl_scale.optim.optimizer import LayerDecay, Optimizer
from ssl_scale.optim.schedule import Constant, Schedule
from ssl_scale.part import Given, NonNegative, Whole

_WEIGHT_DECAY = Constant(1e-4)


class SGD(Optimizer):
    """Gradient descent with momentum, Nesterov's if wanted.

    Paper: On the importance of initialization and momentum in deep learning (Sutskever et al.,
    ICML 2013), section 2. Differs, as PyTorch does: the learning rate multiplies the momentum
    instead of going into it. The weight decay is added to the gradient.

    Args:
        lr: learning rate over progress.
        weight_decay: over progress; only weights of two or more dimensions decay.
        momentum: share of the last step's direction; 0 is plain descent.
        nesterov: whether the gradient is taken ahead, where the momentum leads.
        clip: largest norm of the gradient of all parameters together; 0 means no clipping.
        groups: parameters that move otherwise than the rest.
        layer_decay: factor of the learning rate for each block further down an encoder's trunk.
        lr_per: samples of a global batch for which `lr` is meant: it is multiplied by
            ``global_batch / lr_per``; 0 leaves it as it is written.
        global_batch: samples of an optimizer step.

    Raises:
        ValueError: `nesterov` without momentum.
    """

    def __init__(
        self,
        lr: Schedule,
        weight_decay: Schedule = _WEIGHT_DECAY,
        momentum: NonNegative = 0.9,
        nesterov: bool = False,
        clip: NonNegative = 0.0,
        groups: tuple[Group, ...] = (),
        layer_decay: LayerDecay = 1.0,
        lr_per: Whole = 0,
        *,
        global_batch: Given[int] = 0,
    ) -> None:
        super().__init__(lr, weight_decay, clip, groups, layer_decay, lr_per, global_batch)
        if nesterov and not momentum:
            raise ValueError("momentum must be above 0 with nesterov, but is 0")
        self.momentum, self.nesterov = momentum, nesterov

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """A torch SGD."""
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov)
