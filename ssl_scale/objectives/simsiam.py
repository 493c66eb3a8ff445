"""SimSiam: the student predicts its own projection of another crop; nothing repels, no teacher."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssl_scale.heads.predictor import Predictor
from ssl_scale.heads.projector import Projector
from ssl_scale.objectives.crops import both_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, Given, Spec, ViewName
from ssl_scale.types import Loss, Step


class SimSiam(Objective):
    """Negative cosine between the prediction from one crop and the projection of the other.

    Paper: Exploring Simple Siamese Representation Learning, arXiv 2011.10566, equations 3 and 4
    (``p`` is the prediction, ``z`` the projection, behind a stopped gradient). Counts samples; a
    sample's loss lies in [-1, 1], and at -1 crops agree. It is there too if features collapse: what
    prevents that is the stopped gradient with the predictor, and batch norms help (section 4).

    Differs: batch norms see both crops of the batch as one population, where the authors' code runs
    them one by one. Under gradient accumulation they see one micro-batch.

    Args:
        encoder: whose features are compared.
        projector: makes the head; the paper's ends with a batch norm (`last_norm`).
        predictor: makes the head that only the predicting side has.
        view: of two crops; named like the encoder unless told.
        width: feature width of the encoder.
    """

    def __init__(
        self,
        encoder: EncoderName,
        projector: Spec[Projector],
        predictor: Spec[Predictor],
        view: ViewName | None = None,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.view = encoder, view or encoder
        self.projector = projector.build(width=width)
        self.predictor = predictor.build(width=self.projector.out)

    def count(self, step: Step) -> Tensor:
        """Samples that have both crops."""
        return both_crops(step, self.view).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples."""
        present = both_crops(step, self.view)
        crops = present[:, None].expand(-1, 2)
        pooled = blank(step.student(self.encoder, self.view).pooled, crops)
        projected = self.projector(pooled, crops)
        predicted = self.predictor(projected, crops)
        losses = simsiam(full_precision(predicted), full_precision(projected))
        return Loss(torch.where(present, losses, 0).sum())


def simsiam(
    predicted: Float[Tensor, "batch 2 width"], projected: Float[Tensor, "batch 2 width"]
) -> Float[Tensor, " batch"]:
    """Each sample's loss, averaged over the two directions.

    Args:
        predicted: predictions from each crop.
        projected: projections of each crop; get no gradient.
    """
    across = F.normalize(projected.detach(), dim=-1).flip(1)
    return -(F.normalize(predicted, dim=-1) * across).sum(-1).mean(1)
