"""Losses that are one number of the whole batch: a covariance, a correlation.

They are no sum over samples, but fit `Loss.total` all the same. Every rank computes the same number
from reduced moments and enters it once for each of its samples (`for_each`); what the engine makes
of the totals, their sum over ranks divided by the samples of all ranks, is that number again. Its
gradient is exact too: the backward pass of a reduction sums over ranks, with the same weights. A
rank without samples enters zero and still takes part in every reduction.
"""

from jaxtyping import Float
from torch import Tensor


def for_each(value: Float[Tensor, ""], count: Tensor) -> Float[Tensor, ""]:
    """A number of the whole batch, once for each of this rank's samples."""
    return value * count


def require_two(count: Float[Tensor, ""], view: str, training: bool) -> None:
    """Refuse to train on a single sample: it has no covariance.

    Held-out data may end with a single sample, whose moments are zero.

    Raises:
        ValueError: there is one sample in the batch of all ranks.
    """
    # Of shapes alone (`ssl-scale plan`) there is no number to look at.
    if training and not count.is_meta and int(count) == 1:
        raise ValueError(
            f"view {view!r} must show at least 2 samples of the global batch, but shows 1: a "
            "loss over covariances has no value there; raise data.global_batch"
        )
