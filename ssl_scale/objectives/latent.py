"""Regression of a teacher's features: what data2vec and I-JEPA share."""

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.objectives.objective import blank, full_precision
from ssl_scale.types import Step

# How features become targets: each token less its mean over its deviation, each feature at each
# place over the global batch, or as they are.
TargetNorm: TypeAlias = Literal["layer", "batch", "none"]

SMALLEST = 1e-6


def normalize_targets(
    step: Step,
    tokens: Float[Tensor, "batch crops tokens width"],
    valid: Bool[Tensor, "batch crops tokens"],
    norm: TargetNorm,
) -> Float[Tensor, "batch crops tokens width"]:
    """Normalise, without learned factors; tokens that are not valid come out as zeros.

    ``batch`` takes off what all samples share at a place. Otherwise a student may do well by
    telling places apart and nothing else. The batch is the global one; under gradient accumulation
    it is one micro-batch.
    """
    tokens = full_precision(blank(tokens, valid))
    if norm == "layer":
        return blank(F.layer_norm(tokens, tokens.shape[-1:]), valid)
    return _over_the_batch(step, tokens, valid) if norm == "batch" else tokens


def _over_the_batch(step: Step, tokens: Tensor, valid: Tensor) -> Tensor:
    num, width = tokens.shape[2:]
    # Ranks may have padded their sequences differently.
    most = int(step.gather(torch.tensor([num], device=tokens.device)).amax())
    kept = valid.flatten(0, 1)[..., None]
    rows = tokens.flatten(0, 1)

    def over_all(x: Tensor) -> Tensor:
        return step.reduce(F.pad(x.sum(0), (0, 0, 0, most - num)))[:num]

    sums = over_all(torch.cat([rows, kept.to(rows.dtype)], -1))
    count = sums[:, width:].clamp(min=1)
    deviations = torch.where(kept, rows - sums[:, :width] / count, 0)
    variance = over_all(deviations.square()) / count
    return (deviations * torch.rsqrt(variance + SMALLEST)).view_as(tokens)


def regression(
    predicted: Float[Tensor, "*tokens width"],
    target: Float[Tensor, "*tokens width"],
    beta: float | None,
) -> Float[Tensor, "*tokens"]:
    """Mean over features of the smooth absolute error, or of the squared error if beta is None.

    ``e^2 / (2 beta)`` where the error e is less than beta, else ``|e| - beta / 2``.
    """
    predicted = full_precision(predicted)
    if beta is None:
        return (predicted - target).square().mean(-1)
    return F.smooth_l1_loss(predicted, target, reduction="none", beta=beta).mean(-1)
