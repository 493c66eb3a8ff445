"""SwAV: each crop predicts the cluster that another crop of the picture was assigned to."""

import torch
from torch import Tensor

from ssl_scale.heads.assignment import SinkhornKnopp
from ssl_scale.heads.prototypes import PrototypeHead
from ssl_scale.objectives.multi_crop import MultiCrop, across_crops, entropy
from ssl_scale.objectives.objective import Objective, full_precision
from ssl_scale.part import Count, EncoderName, Given, Positive, Probability, Spec, ViewName
from ssl_scale.types import Loss, Step


class SwAV(Objective):
    """Cross-entropy against the codes of the two global crops, which the student itself gives.

    Paper: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv
    2006.09882, equations 2, 3 and 6 (``C`` are the prototypes of `head`, ``tau`` is `temperature`).
    Codes are computed on the global batch, for each crop by itself. Counts samples.

    Differs: no queue of earlier features, which the authors use for small batches.

    Args:
        encoder: of pictures.
        head: makes the head.
        view: of two global crops; named like the encoder unless told.
        local_view: of local crops, which are given no codes; their number and size are free.
        temperature: of the predictions.
        epsilon: of the codes: how soft they are.
        iterations: of Sinkhorn-Knopp.
        frozen_until: fraction of training until which the prototypes stay as they are.
        width: feature width of the encoder.
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
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.crops = MultiCrop(encoder, view or encoder, local_view)
        self.temperature, self.epsilon = temperature, epsilon
        self.frozen_until = frozen_until
        self.head = head.build(width=width)
        self.codes = SinkhornKnopp(iterations, prototypes=self.head.out)

    def count(self, step: Step) -> Tensor:
        """Samples that have all their crops."""
        return self.crops.present(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples."""
        present = self.crops.present(step)
        pooled, crops = self.crops.student(step, present)
        scores = full_precision(self.head(pooled, crops, step.progress < self.frozen_until))
        log = (scores / self.temperature).log_softmax(-1)
        each = [
            self.codes(scores[:, crop].detach(), present, self.epsilon, step.index)
            for crop in (0, 1)
        ]
        codes = torch.stack(each, 1)
        # Absent samples have zeros for codes, and finite logarithms.
        total = across_crops(codes, log).sum()
        return Loss(total, {"code_entropy": entropy(codes, crops[:, :2])})
