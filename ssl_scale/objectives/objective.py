"""What every loss is: a module that pulls from the `Step` and sums over its own items."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl_scale.part import Part
from ssl_scale.types import Loss, Step


class Objective(nn.Module, Part, ABC):
    """One loss with its heads.

    An objective knows encoders, views and masks by name only, owns no parameter directly (heads
    and temperatures are modules of their own, that take and return tensors) and never touches
    torch.distributed. How a loss that is no sum over items (a covariance of the whole batch) fits
    `count` and `forward` is told in `ssl_scale.objectives.whole_batch`.

    Attributes:
        pairs: whether the loss compares samples of the global batch with each other. Such losses
            change meaning when the batch is cut into micro-batches, so they refuse accumulation.
        takes_packed: whether samples may come to it packed (`View.lengths`).
        taught: names of own heads of which teachers keep a copy, for ``step.apply(name, by=...)``.
        reads: encoder name -> intermediates that `Features.kept` must hold.
    """

    pairs: bool = False
    takes_packed: bool = False
    taught: tuple[str, ...] = ()
    reads: Mapping[str, tuple[str, ...]] = {}

    @abstractmethod
    def count(self, step: Step) -> Tensor:
        """The denominator: this rank's items (samples, tokens, masked cells) in the micro-batch.

        A scalar, known before any student forward.
        """

    @abstractmethod
    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's items."""


def blank(
    x: Float[Tensor, "*rows width"], keep: Bool[Tensor, "*rows"]
) -> Float[Tensor, "*rows width"]:
    """Zero the rows that are not kept, so that neither values (NaN too) nor gradients pass."""
    return torch.where(keep[..., None], x, 0)


def full_precision(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In at least fp32: losses are not computed in half precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
