"""Batch normalisation over the global batch, for heads.

The statistics are those of all ranks' rows that exist, summed through `ssl_scale.dist`, so that
values and gradients equal one process with the whole batch. Deviations are squared around the
global mean, in a second sum: the one-pass formula cancels where the mean is large.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl_scale import dist
from ssl_scale.part import Positive, Probability


class SyncedBatchNorm(nn.Module):
    """Normalises each feature over all rows of the global batch.

    Paper: Batch Normalization, arXiv 1502.03167, algorithm 1.

    Args:
        width: features of a row.
        momentum: how far the running statistics move towards each batch's.
        epsilon: added to the variance.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, width: int, momentum: Probability = 0.1, epsilon: Positive = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(width))

    def forward(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows width"]:
        """Normalise; rows that are not valid take no part in the statistics.

        In training every rank must call this, rows or not.
        """
        dtype = x.dtype
        x = x.float() if dtype in (torch.bfloat16, torch.float16) else x
        if self.training:
            mean, variance = self._statistics(x, valid)
        else:
            mean, variance = self.running_mean.to(x.dtype), self.running_variance.to(x.dtype)
        normal = (x - mean) * torch.rsqrt(variance + self.epsilon)
        return (normal * self.weight + self.bias).to(dtype)

    def _statistics(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, variance, count = global_moments(x, valid)
        with torch.no_grad():
            # Nothing moves where no rank has a row.
            momentum = torch.where(count > 0, self.momentum, 0.0)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            for running, new in ((self.running_mean, mean), (self.running_variance, unbiased)):
                running.lerp_(new.to(running.dtype), momentum.to(running.dtype))
        return mean, variance


def global_moments(
    x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
) -> tuple[Float[Tensor, " width"], Float[Tensor, " width"], Float[Tensor, ""]]:
    """Mean and biased variance of each feature over the valid rows of all ranks, and their number.

    Both are differentiable; without any row they are zero.
    """
    rows = x.flatten(0, -2)
    if valid is None:
        count = rows.new_tensor(float(rows.shape[0]))
    else:
        kept = valid.flatten()[:, None]
        rows = torch.where(kept, rows, 0)
        count = kept.sum().to(rows.dtype)
    sums = dist.reduce(torch.cat([rows.sum(0), count[None]]))
    total = sums[-1].detach()
    mean = sums[:-1] / total.clamp(min=1)
    deviations = rows - mean
    if valid is not None:
        deviations = torch.where(kept, deviations, 0)
    variance = dist.reduce(deviations.square().sum(0)) / total.clamp(min=1)
    return mean, variance, total
