"""Soft assignment of samples to prototypes: what a teacher's scores become before they are targets.

Left alone, a student and its targets agree on one prototype for everything. Both ways out of that
look at the whole global batch: `Centring` takes the mean score off, `SinkhornKnopp` lets every
prototype have an equal share of the samples.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale import dist
from ssl_scale.heads.head import Head
from ssl_scale.heads.statistics import Statistics
from ssl_scale.part import Count, Given, Probability


class Assignment(Head, ABC):
    """Turns scores into distributions over prototypes; every rank must call it, rows or not.

    Attributes:
        pairs: whether a row's assignment depends on the other rows of the same batch, so that
            cutting the batch into micro-batches changes it.
    """

    pairs: ClassVar[bool] = False

    @abstractmethod
    def forward(
        self,
        scores: Float[Tensor, "*rows prototypes"],
        valid: Bool[Tensor, "*rows"],
        temperature: float,
        index: int,
    ) -> Float[Tensor, "*rows prototypes"]:
        """Assign, without gradient.

        Args:
            scores: of this rank's rows with each prototype.
            valid: which rows exist; the others count nowhere and come out as zeros.
            temperature: that the scores are divided by.
            index: optimizer step: what is learned from the rows is learned once a step.
        """


class Centring(Assignment, Statistics):
    """Softmax of the scores less a running mean of them.

    Paper: Emerging Properties in Self-Supervised Vision Transformers, arXiv 2104.14294, section 3.1
    and equation 4 (``c``; its rate ``m`` is `momentum`). As there, a step's scores move the centre
    that the next step uses.

    The scores of a step's micro-batches are added up first, so accumulation changes nothing.

    Args:
        momentum: share of the centre that each step keeps.
        prototypes: number of scores in a row.
    """

    centre: Tensor
    total: Tensor
    count: Tensor
    index: Tensor

    def __init__(self, momentum: Probability = 0.9, *, prototypes: Given[int]) -> None:
        super().__init__()
        self.momentum = momentum
        # The centre as of `index`, and what the rows of that step will add to it.
        self.keep("centre", torch.zeros(prototypes))
        self.keep("total", torch.zeros(prototypes))
        self.keep("count", torch.zeros(1))
        self.keep("index", torch.full((1,), -1, dtype=torch.int64))

    @torch.no_grad()
    def forward(
        self,
        scores: Float[Tensor, "*rows prototypes"],
        valid: Bool[Tensor, "*rows"],
        temperature: float,
        index: int,
    ) -> Float[Tensor, "*rows prototypes"]:
        """Assign; see `Assignment` for the arguments."""
        centre = self._centre(index)
        if self.training:
            self._remember(scores, valid, centre, index)
        distribution = ((scores - centre.to(scores.dtype)) / temperature).softmax(-1)
        return torch.where(valid[..., None], distribution, 0)

    def _centre(self, index: int) -> Tensor:
        mean = self.total / self.count.clamp(min=1)
        moves = (self.index != index) & (self.count > 0)
        return torch.where(moves, mean.lerp(self.centre, self.momentum), self.centre)

    def _remember(self, scores: Tensor, valid: Tensor, centre: Tensor, index: int) -> None:
        rows = torch.where(valid[..., None], scores, 0).flatten(0, -2).to(self.total.dtype)
        count = valid.sum().to(rows.dtype)
        sums = dist.reduce(torch.cat([rows.sum(0), count[None]]))
        is_new = self.index != index
        self.centre.copy_(centre)
        self.total.copy_(torch.where(is_new, 0, self.total) + sums[:-1])
        self.count.copy_(torch.where(is_new, 0, self.count) + sums[-1:])
        self.index.fill_(index)


class SinkhornKnopp(Assignment):
    """Distributions that together give every prototype an equal share of the global batch.

    Paper: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv
    2006.09882, equation 3 and appendix A.1 (``epsilon`` is the temperature); DINOv2 takes its
    teacher's targets so, arXiv 2304.07193, section 4.

    Args:
        iterations: how often prototypes and samples are made equal in turn.
        prototypes: number of scores in a row; any number will do.
    """

    pairs = True

    def __init__(self, iterations: Count = 3, *, prototypes: Given[int]) -> None:
        super().__init__()
        self.iterations = iterations

    @torch.no_grad()
    def forward(
        self,
        scores: Float[Tensor, "*rows prototypes"],
        valid: Bool[Tensor, "*rows"],
        temperature: float,
        index: int,
    ) -> Float[Tensor, "*rows prototypes"]:
        """Assign; see `Assignment` for the arguments."""
        logits = torch.where(valid[..., None], scores / temperature, -torch.inf)
        return sinkhorn_knopp(logits.flatten(0, -2), self.iterations).view_as(scores)


def sinkhorn_knopp(
    logits: Float[Tensor, "rows prototypes"], iterations: int
) -> Float[Tensor, "rows prototypes"]:
    """Scale the exponentials of all ranks' rows until prototypes share the rows equally.

    Args:
        logits: this rank's rows, as large as wanted; rows of minus infinity count nowhere.
        iterations: how often.

    Returns:
        Distributions; zeros for rows of minus infinity.
    """
    tiny = torch.finfo(logits.dtype).tiny
    highest = logits.amax() if logits.numel() else logits.new_tensor(-torch.inf)
    highest = dist.reduce_max(highest)
    # A common factor cancels; so does the number of rows and of prototypes.
    shares = (logits - torch.where(highest.isfinite(), highest, 0)).exp()
    for _ in range(iterations):
        shares = shares / dist.reduce(shares.sum(0)).clamp(min=tiny)
        shares = shares / shares.sum(1, keepdim=True).clamp(min=tiny)
    return shares
