"""What every optimizer part is, and AdamW."""

from abc import ABC, abstractmethod
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le

from ssl_scale.optim.freezing import Freeze, leave_frozen
from ssl_scale.optim.group import Group
from ssl_scale.optim.schedule import Constant, Schedule
from ssl_scale.part import Given, NonNegative, Part, Positive, Probability, Whole

LayerDecay = Annotated[float, Gt(0), Le(1)]

_WEIGHT_DECAY = Constant(0.05)


class Optimizer(Part, ABC):
    """How trained parameters move.

    Args:
        lr: learning rate over progress.
        weight_decay: over progress; only weights of two or more dimensions decay.
        clip: largest norm of the gradient of all parameters together; 0 means no clipping.
        groups: parameters that move otherwise than the rest.
        layer_decay: factor of the learning rate for each block further down an encoder's trunk;
            see `layer_scales`.
        lr_per: samples of a global batch for which `lr` is meant: it is multiplied by
            ``global_batch / lr_per``; 0 leaves it as it is written.
        global_batch: samples of an optimizer step.

    Raises:
        ValueError: `lr_per` without a global batch.
    """

    def __init__(
        self,
        lr: Schedule,
        weight_decay: Schedule,
        clip: float,
        groups: tuple[Group, ...],
        layer_decay: float,
        lr_per: int,
        global_batch: int,
    ) -> None:
        if lr_per and not global_batch:
            raise ValueError(f"lr_per must be 0 without a global batch, but is {lr_per}")
        self.lr, self.weight_decay, self.clip = lr, weight_decay, clip
        self.groups, self.layer_decay = groups, layer_decay
        self.batch_scale = global_batch / lr_per if lr_per else 1.0

    def learning_rate(self, progress: float) -> float:
        """The learning rate at a fraction of training, for this global batch."""
        return self.lr(progress) * self.batch_scale

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer of groups made by `parameter_groups`; it starts at progress 0."""
        optimizer = self.make(groups)
        leave_frozen(optimizer)
        self.apply(optimizer, 0.0, 0)
        return optimizer

    @abstractmethod
    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The torch optimizer; learning rates and weight decays are written later."""

    def apply(self, optimizer: torch.optim.Optimizer, progress: float, index: int) -> None:
        """Write what holds at a moment into the groups; called before the backward pass.

        Args:
            optimizer: made by `build`.
            progress: fraction of training done.
            index: optimizer steps done.
        """
        lr, weight_decay = self.learning_rate(progress), self.weight_decay(progress)
        for group in optimizer.param_groups:
            own = group["own_weight_decay"]
            group["lr"] = lr * group["lr_scale"]
            group["weight_decay"] = weight_decay * group["wd_scale"] if own is None else own
            freeze: Freeze | None = group["freeze"]
            if freeze is not None:
                freeze.is_on = freeze.lasts(progress, index)


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
        eps: Positive = 1e-8,
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
        """A torch AdamW."""
        return torch.optim.AdamW(
            groups, betas=self.betas, eps=self.eps, fused=torch.cuda.is_available()
        )
