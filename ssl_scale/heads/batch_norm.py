"""Batch normalisation over the global batch, for heads and for convolutional encoders.

The statistics are those of all ranks' rows that exist, summed through `ssl_scale.dist`, so that
values and gradients equal one process with the whole batch. Deviations are squared around the
global mean, in a second sum: the one-pass formula cancels where the mean is large. One rank with
nothing absent needs none of this, and runs torch's fused kernel.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ssl_scale import dist
from ssl_scale.heads.statistics import Statistics
from ssl_scale.part import Positive, Probability


class SyncedBatchNorm(Statistics):
    """Normalises each feature over all rows of the global batch.

    Paper: Batch Normalization, arXiv 1502.03167, algorithm 1.

    Args:
        width: features of a row.
        momentum: how far the running statistics move towards each batch's.
        epsilon: added to the variance.
        start: initial factor of each feature.
        affine: whether to learn a factor and a shift of each feature.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(
        self,
        width: int,
        momentum: Probability = 0.1,
        epsilon: Positive = 1e-5,
        start: float = 1.0,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.full((width,), float(start))) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None
        self.keep("running_mean", torch.zeros(width))
        self.keep("running_variance", torch.ones(width))

    def forward(
        self, x: Float[Tensor, "*rows width"], valid: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows width"]:
        """Normalise; rows that are not valid take no part in the statistics.

        In training every rank must call this, rows or not.
        """
        rows = x.reshape(-1, x.shape[-1])
        return self._normalised(rows, None if valid is None else valid.flatten()).view(x.shape)

    def _normalised(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Normalise ``[samples, width, *cells]``."""
        is_alone = dist.world_size() == 1 and valid is None and x.numel() > x.shape[1]
        if not self.training or is_alone:
            return self._fused(x)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean, variance, count = _moments(wide.detach(), valid)
        with torch.no_grad():
            # Nothing moves where no rank has a row.
            momentum = (count > 0).double() * self.momentum
            unbiased = variance * (count / (count - 1).clamp(min=1))
            for running, new in ((self.running_mean, mean), (self.running_variance, unbiased)):
                running.lerp_(new.to(running.dtype), momentum.to(running.dtype))
        scale = torch.rsqrt(variance + self.epsilon)
        normal: Tensor = _Standardize.apply(wide, mean, scale, count, valid)  # type: ignore[no-untyped-call]
        if self.weight is not None and self.bias is not None:
            shape = (-1, *[1] * (x.dim() - 2))
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(x.dtype)

    def _fused(self, x: Tensor) -> Tensor:
        # The kernel takes half-precision values, but parameters only in the statistics' type.
        kind = self.running_mean.dtype
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_variance,
            None if self.weight is None else self.weight.to(kind),
            None if self.bias is None else self.bias.to(kind),
            self.training,
            self.momentum,
            self.epsilon,
        )


class SyncedBatchNorm2d(SyncedBatchNorm):
    """Normalises each channel over all cells of all pictures of the global batch."""

    def forward(
        self,
        x: Float[Tensor, "images width height columns"],
        valid: Bool[Tensor, " images"] | None = None,
    ) -> Float[Tensor, "images width height columns"]:
        """Normalise; pictures that are not valid take no part in the statistics.

        In training every rank must call this, pictures or not.
        """
        return self._normalised(x, valid)


class _Standardize(Function):
    """``(x - mean) * scale`` where mean and scale are statistics of all valid rows of all ranks.

    Written out, since autograd would keep several copies of `x` for the backward pass: with
    ``z = (x - mean) * scale`` and g the gradient of z,
    ``dx = scale * (g - mean(g) - z mean(g z))``, means over the global batch. Rows that are not
    valid made no statistics, so they get ``scale * g`` alone.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, count: Tensor, valid: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, mean, scale, count, valid)
        shape = (-1, *[1] * (x.dim() - 2))
        return (x - mean.view(shape)) * scale.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, count, valid = ctx.saved_tensors
        shape, over = (-1, *[1] * (x.dim() - 2)), [0, *range(2, x.dim())]
        gradient = gradients[0]
        normal = (x - mean.view(shape)) * scale.view(shape)
        sums = torch.stack([gradient.sum(over), (gradient * normal).sum(over)])
        first, second = (dist.reduce(sums) / count.clamp(min=1)).unbind()
        through = first.view(shape) + normal * second.view(shape)
        if valid is not None:
            through = torch.where(valid.view(-1, *[1] * (x.dim() - 1)), through, 0)
        return (gradient - through) * scale.view(shape), None, None, None, None


def _moments(x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each feature, and of how many values they are made.

    Without any value they are zero.
    """
    shape, over = (-1, *[1] * (x.dim() - 2)), [0, *range(2, x.dim())]
    kept = torch.ones(len(x), dtype=torch.bool, device=x.device) if valid is None else valid
    kept = kept.view(-1, *[1] * (x.dim() - 1))
    count = kept.sum().to(x.dtype) * math.prod(x.shape[2:])
    sums = dist.reduce(torch.cat([torch.where(kept, x, 0).sum(over), count[None]]))
    total = sums[-1]
    mean = sums[:-1] / total.clamp(min=1)
    deviations = torch.where(kept, x - mean.view(shape), 0)
    return mean, dist.reduce(deviations.square().sum(over)) / total.clamp(min=1), total
