"""What every optimizer part is, and AdamW."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from ssl_scale.optim.schedule import Constant, Schedule
from ssl_scale.part import NonNegative, Part, Positive, Probability

_WEIGHT_DECAY = Constant(0.05)
_NO_SCALES: Mapping[str, float] = MappingProxyType({})


class Optimizer(Part, ABC):
    """How trained parameters move.

    Args:
        lr: learning rate over progress.
        weight_decay: over progress; only weights of two or more dimensions decay.
        clip: largest norm of the gradient of all parameters together; 0 means no clipping.
        lr_scales: pattern (a regular expression, found anywhere in a parameter's name) -> factor
            of the learning rate; the first that is found counts.
        no_decay: patterns of further parameters that do not decay.
    """

    def __init__(
        self,
        lr: Schedule,
        weight_decay: Schedule,
        clip: NonNegative,
        lr_scales: Mapping[str, NonNegative],
        no_decay: tuple[str, ...],
    ) -> None:
        self.lr, self.weight_decay, self.clip = lr, weight_decay, clip
        self.lr_scales, self.no_decay = lr_scales, no_decay

    @abstractmethod
    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer of groups made by `parameter_groups`; it starts at progress 0."""


class AdamW(Optimizer):
    """Adam with decoupled weight decay; fused on a GPU.

    Paper: Decoupled Weight Decay Regularization, arXiv 1711.05101, algorithm 2; as in PyTorch the
    decay is multiplied by the learning rate.

    Args:
        lr: learning rate over progress.
        weight_decay: over progress; only weights of two or more dimensions decay.
        betas: decay rates of the first and the second moment.
        eps: added to the root of the second moment.
        clip: largest norm of the gradient of all parameters together; 0 means no clipping.
        lr_scales: pattern (a regular expression, found anywhere in a parameter's name) -> factor
            of the learning rate; the first that is found counts.
        no_decay: patterns of further parameters that do not decay.
    """

    def __init__(
        self,
        lr: Schedule,
        weight_decay: Schedule = _WEIGHT_DECAY,
        betas: tuple[Probability, Probability] = (0.9, 0.999),
        eps: Positive = 1e-8,
        clip: NonNegative = 0.0,
        lr_scales: Mapping[str, NonNegative] = _NO_SCALES,
        no_decay: tuple[str, ...] = (),
    ) -> None:
        super().__init__(lr, weight_decay, clip, lr_scales, no_decay)
        self.betas, self.eps = betas, eps

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """A torch AdamW, at the schedules' first values."""
        optimizer = torch.optim.AdamW(
            groups,
            lr=self.lr(0.0),
            betas=self.betas,
            eps=self.eps,
            fused=torch.cuda.is_available(),
        )
        for group in optimizer.param_groups:
            group["lr"] = self.lr(0.0) * group["lr_scale"]
            group["weight_decay"] = self.weight_decay(0.0) * group["wd_scale"]
        return optimizer
