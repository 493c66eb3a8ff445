"""Many crops of one picture: two global ones give the targets, the others are to agree with them.

What DINO and SwAV share: how crops are read, and the cross-entropy between them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.objectives.crops import both_crops
from ssl_scale.objectives.objective import blank
from ssl_scale.types import Step


@dataclass(frozen=True)
class MultiCrop:
    """The names of what is read.

    Args:
        encoder: of pictures.
        view: of two global crops.
        local_view: of any number of local crops, or None.
        mask: of the global crops, or None.
    """

    encoder: str
    view: str
    local_view: str | None
    mask: str | None = None

    def present(self, step: Step) -> Bool[Tensor, " batch"]:
        """Samples that have all their crops."""
        present = both_crops(step, self.view)
        if self.local_view is None:
            return present
        return present & step.view(self.local_view).present.all(1)

    def student(
        self, step: Step, present: Bool[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch crops width"], Bool[Tensor, "batch crops"]]:
        """The student's pooled features of the global crops, then of the local ones.

        Also says which rows exist; the others are zeros.
        """
        pooled = step.student(self.encoder, self.view, mask=self.mask).pooled
        if self.local_view is not None:
            pooled = torch.cat([pooled, step.student(self.encoder, self.local_view).pooled], 1)
        crops = present[:, None].expand(pooled.shape[:2])
        return blank(pooled, crops), crops


def across_crops(
    targets: Float[Tensor, "batch 2 prototypes"], log: Float[Tensor, "batch crops prototypes"]
) -> Float[Tensor, " batch"]:
    """Cross-entropy of every crop against the targets of each *other* global crop, averaged.

    Args:
        targets: distributions of the two global crops.
        log: logarithms of the distributions of all crops, the global ones first.
    """
    others = (targets.flip(1) * log[:, :2]).sum((1, 2))
    # The sum over pairs is the product of sums: no pair is written out.
    local = (targets.sum(1) * log[:, 2:].sum(1)).sum(1)
    return -(others + local) / (2 * (log.shape[1] - 1))


def entropy(
    targets: Float[Tensor, "*rows prototypes"], valid: Bool[Tensor, "*rows"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The entropy of targets, in nats, to log: summed, and the number of rows.

    At 0 all targets are certain, at the logarithm of the number of prototypes all are collapsed to
    the uniform distribution.
    """
    each = -torch.xlogy(targets, targets).sum(-1)
    return torch.where(valid, each, 0).sum(), valid.sum().to(each.dtype)
