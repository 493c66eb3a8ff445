"""MoCo v3: the student predicts the teacher's key of the other crop among the global batch's."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.heads.predictor import Predictor
from ssl_scale.heads.projector import Projector
from ssl_scale.objectives.contrast import contrast
from ssl_scale.objectives.crops import both_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, Given, Positive, Spec, TeacherName, ViewName
from ssl_scale.types import Loss, Step


class MoCoV3(Objective):
    """Softmax contrast of the student's predictions with the teacher's keys of the same batch.

    Paper: An Empirical Study of Training Self-Supervised Vision Transformers, arXiv 2104.02057,
    equation 1 and algorithm 1 (``q``, ``k``; ``tau`` is `temperature`; the loss is multiplied by
    ``2 tau`` and added over both directions). Counts samples.

    Differs: batch norms see both crops of the batch as one population, where the authors' code runs
    them one by one; the teacher's batch norms use the student's running statistics, since teachers
    are always in evaluation mode.

    Args:
        encoder: of student and teacher.
        projector: makes the head of which the teacher keeps a copy; the authors' ends with a batch
            norm (`last_norm`).
        predictor: makes the head that only the student has; the authors' ends with a batch norm.
        view: of two crops; named like the encoder unless told.
        teacher: where the keys come from; may be left out where there is one.
        temperature: softmax temperature.
        width: feature width of the encoder.
    """

    pairs = True
    taught = ("projector",)

    def __init__(
        self,
        encoder: EncoderName,
        projector: Spec[Projector],
        predictor: Spec[Predictor],
        view: ViewName | None = None,
        teacher: TeacherName | None = None,
        temperature: Positive = 0.2,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.view, self.teacher = encoder, view or encoder, teacher
        self.temperature = temperature
        self.projector = projector.build(width=width)
        self.predictor = predictor.build(width=self.projector.out)

    def count(self, step: Step) -> Tensor:
        """Samples that have both crops."""
        return both_crops(step, self.view).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples, each among the samples of all ranks."""
        present = both_crops(step, self.view)
        crops = present[:, None].expand(-1, 2)
        pooled = blank(step.student(self.encoder, self.view).pooled, crops)
        predicted = self.predictor(self.projector(pooled, crops), crops)
        queries = F.normalize(full_precision(predicted), dim=-1)
        taught = blank(step.teacher(self.encoder, self.view, by=self.teacher).pooled, crops)
        projected = step.apply("projector", taught, crops, by=self.teacher)
        keys = F.normalize(full_precision(projected), dim=-1)
        losses, hits = moco_v3(
            queries, step.gather(keys), step.gather(present), step.offset(present), self.temperature
        )
        total, right = (torch.where(present, each, 0).sum() for each in (losses, hits))
        return Loss(total, {"accuracy": (right, present.sum())})


def moco_v3(
    queries: Float[Tensor, "batch 2 width"],
    keys: Float[Tensor, "samples 2 width"],
    present: Bool[Tensor, " samples"],
    offset: int,
    temperature: float,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Each local sample's loss, added over both directions, and its mean accuracy.

    Args:
        queries: this rank's predictions from each crop, of unit length.
        keys: the teacher's projections of each crop on all ranks, of unit length; get no gradient.
        present: which samples are candidates; the loss of the others means nothing.
        offset: place of the first local sample among everyone's.
        temperature: softmax temperature.
    """
    match = torch.arange(len(queries), device=present.device) + offset
    columns = torch.arange(len(present), device=present.device)
    allowed = present | (columns == match[:, None])
    keys = keys.detach()
    (there, hits), (back, more) = (
        contrast(queries[:, crop], keys[:, 1 - crop], match, allowed, 1 / temperature)
        for crop in range(2)
    )
    return 2 * temperature * (there + back), (hits.to(there) + more.to(back)) / 2
