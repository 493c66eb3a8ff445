"""VICReg: crops agree, while every feature varies over the batch and no two vary together."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssl_scale.heads.moments import global_covariance
from ssl_scale.heads.projector import Projector
from ssl_scale.objectives.crops import both_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.objectives.whole_batch import for_each, require_two
from ssl_scale.part import EncoderName, Given, NonNegative, Positive, Spec, ViewName
from ssl_scale.types import Loss, Step


class VICReg(Objective):
    """Invariance of two crops, variance and covariance of each crop over the global batch.

    Paper: VICReg, arXiv 2105.04906, equations 1 to 6 and algorithm 1 (``lambda``, ``mu``, ``nu``
    are `invariance`, `variance`, `covariance`; ``gamma`` is `deviation`). Counts samples; variance
    and covariance are of the whole batch (see `ssl_scale.objectives.whole_batch`).

    Paper and authors' code do not agree with each other. As in algorithm 1 and the code the
    invariance term is averaged over features (equation 5 sums them; the weights are meant for the
    mean) and variances are unbiased.

    Differs: the variance terms of both crops are added, as in equation 6; the authors' code halves
    them.

    Args:
        encoder: whose features are compared.
        projector: makes the head (the paper's expander); the last layer needs no bias.
        view: of two crops; named like the encoder unless told.
        invariance: weight of the squared distance between crops.
        variance: weight of how far standard deviations fall short of `deviation`.
        covariance: weight of squared covariances between features.
        deviation: standard deviation from which on a feature varies enough.
        epsilon: added to variances.
        width: feature width of the encoder.
    """

    pairs = True

    def __init__(
        self,
        encoder: EncoderName,
        projector: Spec[Projector],
        view: ViewName | None = None,
        invariance: NonNegative = 25.0,
        variance: NonNegative = 25.0,
        covariance: NonNegative = 1.0,
        deviation: Positive = 1.0,
        epsilon: Positive = 1e-4,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.view = encoder, view or encoder
        self.weights = invariance, variance, covariance
        self.deviation, self.epsilon = deviation, epsilon
        self.projector = projector.build(width=width)

    def count(self, step: Step) -> Tensor:
        """Samples that have both crops."""
        return both_crops(step, self.view).sum()

    def forward(self, step: Step) -> Loss:
        """The invariance summed over this rank's samples, and the batch's terms once for each."""
        present = both_crops(step, self.view)
        crops = present[:, None].expand(-1, 2)
        pooled = blank(step.student(self.encoder, self.view).pooled, crops)
        projected = full_precision(self.projector(pooled, crops))
        distances = F.mse_loss(projected[:, 0], projected[:, 1], reduction="none").mean(1)
        together, apart = [], []
        for crop in range(2):
            matrix, count = global_covariance(projected[:, crop], present, step.reduce)
            require_two(count, self.view, self.training)
            together.append(shortfall(matrix.diagonal(), self.deviation, self.epsilon))
            apart.append(redundancy(matrix))
        count = present.sum()
        terms = {
            "invariance": torch.where(present, distances, 0).sum(),
            "variance": for_each(torch.stack(together).sum(), count),
            "covariance": for_each(torch.stack(apart).sum(), count),
        }
        weighed = [weight * term for weight, term in zip(self.weights, terms.values(), strict=True)]
        metrics = {name: (term.detach(), count) for name, term in terms.items()}
        return Loss(torch.stack(weighed).sum(), metrics)


def shortfall(
    variances: Float[Tensor, " width"], deviation: Positive, epsilon: Positive
) -> Float[Tensor, ""]:
    """How far standard deviations fall short of the wanted one, averaged over features."""
    return F.relu(deviation - (variances + epsilon).sqrt()).mean()


def redundancy(covariance: Float[Tensor, "width width"]) -> Float[Tensor, ""]:
    """Squared covariances between different features, summed, over the number of features."""
    same = torch.eye(len(covariance), dtype=torch.bool, device=covariance.device)
    return covariance.masked_fill(same, 0).square().sum() / len(covariance)
