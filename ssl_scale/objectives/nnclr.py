"""NNCLR: a crop's nearest neighbour among former samples matches the sample's other crop."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.heads.predictor import Predictor
from ssl_scale.heads.projector import Projector
from ssl_scale.heads.queue import Queue
from ssl_scale.objectives.contrast import contrast
from ssl_scale.objectives.crops import both_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import Count, EncoderName, Given, Positive, Spec, ViewName
from ssl_scale.types import Loss, Step


class NNCLR(Objective):
    """Softmax contrast of each crop's nearest neighbour with the batch's other crops.

    Paper: With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual
    Representations, arXiv 2104.14548, section 3.2 and algorithm 1 (``NN(z, Q)`` with ``Q`` the
    `support` set, ``p`` the prediction, ``tau`` the `temperature`). Gradients pass through
    predictions only: neighbours are rows of former batches. Counts samples: the mean of a sample's
    two crops.

    Args:
        encoder: whose features are contrasted.
        projector: makes the first head; the paper's ends with a batch norm (`last_norm`).
        predictor: makes the head that follows it.
        view: of two crops; named like the encoder unless told.
        support: projections of former samples (their first crops) among which neighbours are found.
        temperature: softmax temperature.
        width: feature width of the encoder.
    """

    pairs = True

    def __init__(
        self,
        encoder: EncoderName,
        projector: Spec[Projector],
        predictor: Spec[Predictor],
        view: ViewName | None = None,
        support: Count = 98304,
        temperature: Positive = 0.1,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.view = encoder, view or encoder
        self.temperature = temperature
        self.projector = projector.build(width=width)
        self.predictor = predictor.build(width=self.projector.out)
        self.support = Queue(support, self.projector.out)

    def count(self, step: Step) -> Tensor:
        """Samples that have both crops."""
        return both_crops(step, self.view).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples; in training they join the support set."""
        present = both_crops(step, self.view)
        crops = present[:, None].expand(-1, 2)
        pooled = blank(step.student(self.encoder, self.view).pooled, crops)
        projected = self.projector(pooled, crops)
        predicted = F.normalize(full_precision(self.predictor(projected, crops)), dim=-1)
        seen = F.normalize(full_precision(projected.detach()), dim=-1)
        neighbours = nearest(seen, self.support(step.index).to(seen.dtype))
        everyone = step.gather(present)
        losses, hits = nnclr(
            neighbours, step.gather(predicted), everyone, step.offset(present), self.temperature
        )
        self.support.push(step.gather(seen[:, 0]), everyone, step.gather(step.batch.seeds))
        total, right = (torch.where(present, each, 0).sum() for each in (losses, hits))
        return Loss(total, {"accuracy": (right, present.sum())})


def nearest(
    x: Float[Tensor, "*rows width"], support: Float[Tensor, "size width"]
) -> Float[Tensor, "*rows width"]:
    """The row of the support set that is most like each row; all of unit length."""
    return support[(x @ support.T).argmax(-1)]


def nnclr(
    neighbours: Float[Tensor, "batch 2 width"],
    predicted: Float[Tensor, "samples 2 width"],
    present: Bool[Tensor, " samples"],
    offset: int,
    temperature: float,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Each local sample's loss and accuracy, averaged over its two crops.

    Args:
        neighbours: of this rank's crops, of unit length.
        predicted: predictions from each crop on all ranks, of unit length.
        present: which samples are candidates; the loss of the others means nothing.
        offset: place of the first local sample among everyone's.
        temperature: softmax temperature.
    """
    match = torch.arange(len(neighbours), device=present.device) + offset
    columns = torch.arange(len(present), device=present.device)
    allowed = present | (columns == match[:, None])
    (there, hits), (back, more) = (
        contrast(neighbours[:, crop], predicted[:, 1 - crop], match, allowed, 1 / temperature)
        for crop in range(2)
    )
    return (there + back) / 2, (hits.to(there) + more.to(back)) / 2
