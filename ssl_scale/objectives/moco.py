"""MoCo: a crop matches the teacher's other crop, and no other sample's of the last batches."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssl_scale.heads.projector import Projector
from ssl_scale.heads.queue import Queue
from ssl_scale.objectives.crops import both_crops, one_crop
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import Count, EncoderName, Given, Positive, Spec, TeacherName, ViewName
from ssl_scale.types import Loss, Step


class MoCo(Objective):
    """Softmax contrast of the student's queries with the teacher's keys, old ones from a queue.

    Paper: Momentum Contrast for Unsupervised Visual Representation Learning, arXiv 1911.05722,
    equation 1 and algorithm 1 (``q`` of the first crop, ``k+`` of the second, ``K`` is `queue`,
    ``tau`` is `temperature`); the projector and the defaults are those of MoCo v2, arXiv
    2003.04297. Counts samples.

    Differs: batches are not shuffled between ranks. The paper does so because a batch norm over one
    rank's rows tells which key belongs to a query; ours are over the global batch, and teachers use
    the student's running statistics.

    Args:
        encoder: of student and teacher.
        projector: makes the head of which the teacher keeps a copy.
        view: of two crops; named like the encoder unless told.
        teacher: where the keys come from; may be left out where there is one.
        queue: keys that every query is compared with, beside its own.
        temperature: softmax temperature.
        width: feature width of the encoder.
    """

    taught = ("projector",)

    def __init__(
        self,
        encoder: EncoderName,
        projector: Spec[Projector],
        view: ViewName | None = None,
        teacher: TeacherName | None = None,
        queue: Count = 65536,
        temperature: Positive = 0.2,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.view, self.teacher = encoder, view or encoder, teacher
        self.temperature = temperature
        self.projector = projector.build(width=width)
        self.queue = Queue(queue, self.projector.out)

    def count(self, step: Step) -> Tensor:
        """Samples that have both crops."""
        return both_crops(step, self.view).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples; in training their keys join the queue."""
        present, view = both_crops(step, self.view), step.view(self.view)
        asked = blank(step.student(self.encoder, one_crop(view, 0)).pooled[:, 0], present)
        queries = F.normalize(full_precision(self.projector(asked, present)), dim=-1)
        taught = step.teacher(self.encoder, one_crop(view, 1), by=self.teacher).pooled[:, 0]
        taught = blank(taught, present)
        projected = step.apply("projector", taught, present, by=self.teacher)
        keys = F.normalize(full_precision(projected), dim=-1)
        old = self.queue(step.index).to(queries.dtype)
        losses, hits = moco(queries, keys, old, self.temperature)
        self.queue.push(*map(step.gather, (keys, present, step.batch.seeds)))
        total, right = (torch.where(present, each, 0).sum() for each in (losses, hits))
        return Loss(total, {"accuracy": (right, present.sum())})


def moco(
    queries: Float[Tensor, "batch width"],
    keys: Float[Tensor, "batch width"],
    queue: Float[Tensor, "size width"],
    temperature: float,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Each sample's ``-log(exp(q.k+ / tau) / (exp(q.k+ / tau) + sum_queue exp(q.k / tau)))``.

    Args:
        queries: of unit length.
        keys: each query's match, of unit length; get no gradient.
        queue: rows that match no query.
        temperature: softmax temperature.

    Returns:
        The loss of each query, and whether its match ranks first.
    """
    match = (queries * keys.detach()).sum(1, keepdim=True) / temperature
    others = queries @ queue.T / temperature
    losses = torch.cat([match, others], 1).logsumexp(1) - match[:, 0]
    return losses, (others <= match).all(1).to(losses)
