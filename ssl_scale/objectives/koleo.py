"""KoLeo: features spread out, each away from its nearest neighbour."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, MaskName, ViewName
from ssl_scale.types import Loss, Step

SMALLEST = 1e-8


class KoLeo(Objective):
    """Negative logarithm of the distance to the nearest neighbour in the batch.

    Papers: Spreading vectors for similarity search, arXiv 1806.03198, equation 2 (the
    Kozachenko-Leonenko estimator of entropy); DINOv2, arXiv 2304.07193, section 4. As in DINOv2's
    code, the neighbours of a crop are the crops of the same number (so never of its own sample),
    and the losses of a sample's crops are added. Counts samples.

    Differs: neighbours are sought in the global batch, where DINOv2 looks at each rank's. The
    nearest one has a gradient too.

    Args:
        encoder: whose pooled features are spread.
        view: named like the encoder unless told.
        mask: what the student does not see of the view.
    """

    pairs = True

    def __init__(
        self, encoder: EncoderName, view: ViewName | None = None, mask: MaskName | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.view, self.mask = encoder, view or encoder, mask

    def count(self, step: Step) -> Tensor:
        """Samples that have all crops of the view."""
        return self._present(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples, each among the samples of all ranks."""
        present = self._present(step)
        pooled = step.student(self.encoder, self.view, mask=self.mask).pooled
        pooled = full_precision(blank(pooled, present[:, None].expand(pooled.shape[:2])))
        local = F.normalize(pooled, dim=-1, eps=SMALLEST)
        everyone, everyone_present = step.gather(local), step.gather(present)
        # Held-out data may end with a single sample, which has no neighbour and so adds nothing.
        if self.training and len(everyone) == 1:
            raise ValueError(
                f"view {self.view!r} must show at least 2 samples of the global batch, but shows "
                "1, which has no neighbour; raise data.global_batch"
            )
        losses, distances = koleo(local, everyone, everyone_present, step.offset(local))
        total = torch.where(present, losses, 0).sum()
        nearest = torch.where(present, distances.detach(), 0).sum()
        return Loss(total, {"nearest_distance": (nearest, present.sum())})

    def _present(self, step: Step) -> Bool[Tensor, " batch"]:
        return step.view(self.view).present.all(1)


def koleo(
    local: Float[Tensor, "batch crops width"],
    everyone: Float[Tensor, "samples crops width"],
    present: Bool[Tensor, " samples"],
    offset: int,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Each local sample's loss, summed over its crops, and distance, averaged over them.

    A sample that has no other to compare with has a loss of zero.

    Args:
        local: this rank's features, of unit length.
        everyone: the features of all ranks.
        present: which samples are neighbours; the loss of the others means nothing.
        offset: place of the first local sample among everyone's.
    """
    rows = torch.arange(len(local), device=local.device) + offset
    allowed = present & (torch.arange(len(everyone), device=local.device) != rows[:, None])
    with torch.no_grad():
        similar = torch.einsum("bcw,scw->bcs", local, everyone)
        similar = similar.masked_fill(~allowed[:, None], -torch.inf)
        # [batch, crops]; the closest on the sphere has the largest product.
        nearest = similar.argmax(-1) if len(everyone) else similar.sum(-1).long()
    crops = torch.arange(local.shape[1], device=local.device)
    distance = torch.linalg.vector_norm(local - everyone[nearest, crops], dim=-1)
    losses = torch.where(allowed.any(1)[:, None], -(distance + SMALLEST).log(), 0)
    return losses.sum(1), distance.mean(1)
