"""BYOL: the student predicts the teacher's projection of another crop; nothing repels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssl_scale.heads.predictor import Predictor
from ssl_scale.heads.projector import Projector
from ssl_scale.objectives.crops import both_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, Given, Spec, TeacherName, ViewName
from ssl_scale.types import Loss, Step


class BYOL(Objective):
    """Normalised squared distance between the student's prediction and the teacher's projection.

    Paper: Bootstrap your own latent, arXiv 2006.07733, equation 2, made symmetric as in section 3.1
    (``theta`` is the student with `projector` and `predictor`, ``xi`` the teacher). Counts samples.

    Differs: batch norms see both crops of the batch as one population, where the authors' code runs
    them one by one; the teacher's batch norms use the student's running statistics, since teachers
    are always in evaluation mode. Under gradient accumulation batch norms see one micro-batch.

    Args:
        encoder: of student and teacher.
        projector: makes the head of which the teacher keeps a copy.
        predictor: makes the head that only the student has.
        view: of two crops; named like the encoder unless told.
        teacher: where the targets come from; may be left out where there is one.
        width: feature width of the encoder.
    """

    taught = ("projector",)

    def __init__(
        self,
        encoder: EncoderName,
        projector: Spec[Projector],
        predictor: Spec[Predictor],
        view: ViewName | None = None,
        teacher: TeacherName | None = None,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.view, self.teacher = encoder, view or encoder, teacher
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
        predicted = self.predictor(self.projector(pooled, crops), crops)
        taught = blank(step.teacher(self.encoder, self.view, by=self.teacher).pooled, crops)
        target = step.apply("projector", taught, crops, by=self.teacher)
        losses = byol(full_precision(predicted), full_precision(target))
        return Loss(torch.where(present, losses, 0).sum())


def byol(
    predicted: Float[Tensor, "batch 2 width"], target: Float[Tensor, "batch 2 width"]
) -> Float[Tensor, " batch"]:
    """Each sample's loss: ``2 - 2 cos(q(z), z')`` of the one crop against the other, both ways.

    Args:
        predicted: the student's predictions from each crop.
        target: the teacher's projections of each crop.
    """
    across = F.normalize(target.detach(), dim=-1).flip(1)
    cosine = (F.normalize(predicted, dim=-1) * across).sum(-1)
    return (2 - 2 * cosine).sum(1)
