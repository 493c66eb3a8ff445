"""Barlow Twins: each feature agrees between two crops, and with no other feature."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_scale.heads.moments import global_correlation
from ssl_scale.heads.projector import Projector
from ssl_scale.objectives.crops import both_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.objectives.whole_batch import for_each, require_two
from ssl_scale.part import EncoderName, Given, NonNegative, Positive, Spec, ViewName
from ssl_scale.types import Loss, Step


class BarlowTwins(Objective):
    """The cross-correlation of two crops' features over the global batch should be the identity.

    Paper: Barlow Twins, arXiv 2103.03230, equations 1 and 2 (``lambda`` is `redundancy`). Counts
    samples; the loss is of the whole batch (see `ssl_scale.objectives.whole_batch`).

    As in the authors' code, variances have `epsilon` added to them.

    Differs: gradients are those of the whole batch. In the authors' code a rank's gradient passes
    through its own share of the correlation only, and averaging over ranks then divides it by
    their number.

    Args:
        encoder: whose features are compared.
        projector: makes the head; the last layer needs no bias.
        view: of two crops; named like the encoder unless told.
        redundancy: weight of the correlations between different features.
        epsilon: added to variances.
        width: feature width of the encoder.
    """

    pairs = True

    def __init__(
        self,
        encoder: EncoderName,
        projector: Spec[Projector],
        view: ViewName | None = None,
        redundancy: NonNegative = 0.005,
        epsilon: Positive = 1e-5,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.view = encoder, view or encoder
        self.redundancy, self.epsilon = redundancy, epsilon
        self.projector = projector.build(width=width)

    def count(self, step: Step) -> Tensor:
        """Samples that have both crops."""
        return both_crops(step, self.view).sum()

    def forward(self, step: Step) -> Loss:
        """The batch's loss, once for each of this rank's samples."""
        present = both_crops(step, self.view)
        crops = present[:, None].expand(-1, 2)
        pooled = blank(step.student(self.encoder, self.view).pooled, crops)
        projected = full_precision(self.projector(pooled, crops))
        matrix, count = global_correlation(
            projected[:, 0], projected[:, 1], present, self.epsilon, step.reduce
        )
        require_two(count, self.view, self.training)
        value = barlow_twins(matrix, self.redundancy)
        agreement = for_each(matrix.diagonal().mean().detach(), present.sum())
        return Loss(for_each(value, present.sum()), {"agreement": (agreement, present.sum())})


def barlow_twins(
    correlation: Float[Tensor, "width width"], redundancy: NonNegative
) -> Float[Tensor, ""]:
    """Squared distance from the identity; off the diagonal weighed by `redundancy`."""
    same = torch.eye(len(correlation), dtype=torch.bool, device=correlation.device)
    squares = torch.where(same, correlation - 1, correlation).square()
    return torch.where(same, squares, redundancy * squares).sum()
