"""Products of features over the global batch: covariance and correlation of the rows of all ranks.

The caller brings the sum over ranks (an objective its step's), so that values and gradients equal
one process with the whole batch. Deviations are multiplied around the global mean, in a second
sum: the one-pass formula cancels where the mean is large. Only matrices of features travel, so the
cost of talking does not grow with the batch. Without any row everything is zero.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.part import Positive

Reduce: TypeAlias = Callable[[Tensor], Tensor]


def global_covariance(
    x: Float[Tensor, "rows width"], valid: Bool[Tensor, " rows"], reduce: Reduce
) -> tuple[Float[Tensor, "width width"], Float[Tensor, ""]]:
    """Unbiased covariance of the features over the valid rows, and the number of rows.

    Of a single row it is zero.
    """
    deviations, count = _centre(x, valid, reduce)
    return reduce(deviations.T @ deviations) / (count - 1).clamp(min=1), count


def global_correlation(
    left: Float[Tensor, "rows width"],
    right: Float[Tensor, "rows other"],
    valid: Bool[Tensor, " rows"],
    epsilon: Positive,
    reduce: Reduce,
) -> tuple[Float[Tensor, "width other"], Float[Tensor, ""]]:
    """Correlation of each left feature with each right one, and the number of rows.

    Args:
        left: rows.
        right: the rows that belong to the left ones.
        valid: which rows count.
        epsilon: added to each (biased) variance.
        reduce: sum over ranks, with gradient.
    """
    (a, count), (b, _) = (_standardise(side, valid, epsilon, reduce) for side in (left, right))
    return reduce(a.T @ b) / count.clamp(min=1), count


def _standardise(x: Tensor, valid: Tensor, epsilon: float, reduce: Reduce) -> tuple[Tensor, Tensor]:
    deviations, count = _centre(x, valid, reduce)
    variance = reduce(deviations.square().sum(0)) / count.clamp(min=1)
    return deviations * torch.rsqrt(variance + epsilon), count


def _centre(x: Tensor, valid: Tensor, reduce: Reduce) -> tuple[Tensor, Tensor]:
    """Each row less the mean (zero where it is not valid), and the number of rows."""
    kept = valid[:, None]
    rows = torch.where(kept, x, 0)
    sums = reduce(torch.cat([rows.sum(0), kept.sum().to(rows.dtype)[None]]))
    count = sums[-1].detach()
    mean = sums[:-1] / count.clamp(min=1)
    return torch.where(kept, rows - mean, 0), count
