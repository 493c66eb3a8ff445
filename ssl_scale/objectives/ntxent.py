"""NT-Xent: two crops of a sample attract, all other crops of the global batch repel."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.heads.projector import Projector
from ssl_scale.objectives.contrast import contrast
from ssl_scale.objectives.crops import both_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, Given, Positive, Spec, ViewName
from ssl_scale.types import Loss, Step


class NTXent(Objective):
    """Softmax contrast between two crops of each sample, of one encoder.

    Paper: A Simple Framework for Contrastive Learning of Visual Representations, arXiv 2002.05709,
    equation 1 (``tau`` is `temperature`, ``g`` the projector); each of the 2N crops is compared
    with the 2N - 1 others of the global batch. Counts samples: the mean of a sample's two crops.

    Args:
        encoder: whose features are contrasted.
        projector: makes the head.
        view: of two crops; named like the encoder unless told.
        temperature: softmax temperature.
        width: feature width of the encoder.
    """

    pairs = True

    def __init__(
        self,
        encoder: EncoderName,
        projector: Spec[Projector],
        view: ViewName | None = None,
        temperature: Positive = 0.1,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.view = encoder, view or encoder
        self.temperature = temperature
        self.projector = projector.build(width=width)

    def count(self, step: Step) -> Tensor:
        """Samples that have both crops."""
        return both_crops(step, self.view).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples, each among the samples of all ranks."""
        present = both_crops(step, self.view)
        crops = present[:, None].expand(-1, 2)
        pooled = blank(step.student(self.encoder, self.view).pooled, crops)
        projected = self.projector(pooled, crops)
        local = F.normalize(full_precision(projected), dim=-1)
        everyone, everyone_present = step.gather(local), step.gather(present)
        losses, hits = nt_xent(
            local, everyone, everyone_present, step.offset(local), self.temperature
        )
        total = torch.where(present, losses, 0).sum()
        return Loss(total, {"accuracy": (torch.where(present, hits, 0).sum(), present.sum())})


def nt_xent(
    local: Float[Tensor, "batch 2 width"],
    everyone: Float[Tensor, "samples 2 width"],
    present: Bool[Tensor, " samples"],
    offset: int,
    temperature: float,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Each local sample's loss and accuracy, averaged over its two crops.

    Args:
        local: this rank's crops, of unit length.
        everyone: the crops of all ranks.
        present: which samples are candidates; the loss of the others means nothing.
        offset: place of the first local sample among everyone's.
        temperature: softmax temperature.
    """
    rows = torch.arange(2 * len(local), device=local.device)
    columns = torch.arange(2 * len(everyone), device=local.device)
    itself = rows + 2 * offset
    # A crop's partner is its neighbour: 0 and 1 belong together, 2 and 3, and so on.
    match = itself ^ 1
    allowed = present.repeat_interleave(2) & (columns != itself[:, None])
    allowed = allowed | (columns == match[:, None])
    losses, hits = contrast(
        local.flatten(0, 1), everyone.flatten(0, 1), match, allowed, 1 / temperature
    )
    return losses.view(-1, 2).mean(1), hits.to(losses).view(-1, 2).mean(1)
