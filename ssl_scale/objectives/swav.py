"""SwAV: each crop predicts the cluster that another crop of the picture was assigned to."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.heads.assignment import SinkhornKnopp
from ssl_scale.heads.prototypes import PrototypeHead
from ssl_scale.heads.queue import Queue
from ssl_scale.objectives.multi_crop import MultiCrop, across_crops, entropy
from ssl_scale.objectives.objective import Objective, full_precision
from ssl_scale.part import (
    Count,
    EncoderName,
    Given,
    Positive,
    Probability,
    Spec,
    ViewName,
    Whole,
)
from ssl_scale.types import Loss, Step


class SwAV(Objective):
    """Cross-entropy against the codes of the two global crops, which the student itself gives.

    Paper: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv
    2006.09882, equations 2, 3 and 6 (``C`` are the prototypes of `head`, ``tau`` is `temperature`).
    Codes are computed on the global batch, for each crop by itself; a batch too small to be shared
    out among the prototypes is joined by a queue of former rows (section 3.1, "Working with small
    batches"). Counts samples.

    Args:
        encoder: of pictures.
        head: makes the head.
        view: of two global crops; named like the encoder unless told.
        local_view: of local crops, which are given no codes; their number and size are free.
        temperature: of the predictions.
        epsilon: of the codes: how soft they are.
        iterations: of Sinkhorn-Knopp.
        frozen_until: fraction of training until which the prototypes stay as they are.
        queue: former samples that help to compute the codes.
        queue_from: fraction of training from which they do; the queue should be full by then.
        width: feature width of the encoder.

    Raises:
        ValueError: the start of a queue, but no queue.
    """

    pairs = True

    def __init__(
        self,
        encoder: EncoderName,
        head: Spec[PrototypeHead],
        view: ViewName | None = None,
        local_view: ViewName | None = None,
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,
        iterations: Count = 3,
        frozen_until: Probability = 0.0,
        queue: Whole = 0,
        queue_from: Probability = 0.0,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        if queue_from and not queue:
            raise ValueError(f"queue must be positive with queue_from {queue_from}, but is 0")
        self.crops = MultiCrop(encoder, view or encoder, local_view)
        self.temperature, self.epsilon = temperature, epsilon
        self.frozen_until = frozen_until
        self.head = head.build(width=width)
        self.codes = SinkhornKnopp(iterations, prototypes=self.head.out)
        self.queue_from = queue_from
        # Of each sample the rows of both global crops.
        self.queue = Queue(queue, 2 * self.head.bottleneck) if queue else None

    def count(self, step: Step) -> Tensor:
        """Samples that have all their crops."""
        return self.crops.present(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples."""
        present = self.crops.present(step)
        pooled, crops = self.crops.student(step, present)
        frozen = step.progress < self.frozen_until
        embedded = self.head.embed(pooled, crops)
        scores = full_precision(self.head.prototypes(embedded, frozen))
        log = (scores / self.temperature).log_softmax(-1)
        codes = self._codes(step, scores[:, :2].detach(), present)
        if self.queue is not None:
            rows = embedded[:, :2].detach().flatten(1)
            self.queue.push(*map(step.gather, (rows, present, step.batch.seeds)))
        # Absent samples have zeros for codes, and finite logarithms.
        total = across_crops(codes, log).sum()
        return Loss(total, {"code_entropy": entropy(codes, crops[:, :2])})

    @torch.no_grad()
    def _codes(
        self,
        step: Step,
        scores: Float[Tensor, "batch 2 prototypes"],
        present: Bool[Tensor, " batch"],
    ) -> Float[Tensor, "batch 2 prototypes"]:
        """The codes of this rank's samples."""
        batch = len(scores)
        if self.queue is not None and step.progress >= self.queue_from:
            # Every rank has the whole queue; each brings a share of it.
            one = present.new_ones(1)
            old = self.queue(step.index)[step.offset(one) :: len(step.gather(one))]
            old = old.view(-1, 2, self.head.bottleneck).to(self.head.prototypes.weight.dtype)
            scores = torch.cat([scores, full_precision(self.head.prototypes(old))])
            present = torch.cat([present, present.new_ones(len(old))])
        each = [self.codes(scores[:, c], present, self.epsilon, step.index) for c in (0, 1)]
        return torch.stack(each, 1)[:batch]
