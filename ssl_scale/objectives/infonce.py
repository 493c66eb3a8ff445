"""InfoNCE: matching pairs of two encoders attract, all other pairs of the global batch repel."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl_scale.heads.projector import Projector
from ssl_scale.heads.temperature import Temperature
from ssl_scale.objectives.contrast import contrast
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, Given, Positive, Spec, ViewName
from ssl_scale.types import Loss, Step


class InfoNCE(Objective):
    """Symmetric softmax contrast between the pooled features of two encoders.

    Paper: Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020,
    figure 3 (``exp(t)`` is the inverse of the temperature). Counts samples that have both views;
    of several crops the first is read.

    Args:
        between: encoders to align; their views show the same samples.
        projector: makes one head for each encoder.
        views: one for each encoder; named like the encoders unless told.
        temperature: softmax temperature at the start of training; learned.
        widths: feature width of every encoder.
    """

    pairs = True

    def __init__(
        self,
        between: tuple[EncoderName, EncoderName],
        projector: Spec[Projector],
        views: tuple[ViewName, ViewName] | None = None,
        temperature: Positive = 0.07,
        *,
        widths: Given[Mapping[str, int]],
    ) -> None:
        super().__init__()
        if between[0] == between[1]:
            raise ValueError(f"between must name two encoders, but is {list(between)}")
        self.between, self.views = tuple(between), tuple(views or between)
        self.projectors = nn.ModuleDict(
            {name: projector.build(width=widths[name]) for name in between}
        )
        self.temperature = Temperature(temperature)

    def count(self, step: Step) -> Tensor:
        """Samples that have both views."""
        return self._present(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples, each among the samples of all ranks."""
        present, scale = self._present(step), self.temperature()
        local = [
            self._project(step, encoder, view, present)
            for encoder, view in zip(self.between, self.views, strict=True)
        ]
        left, right = (step.gather(side) for side in local)
        losses, hits = info_nce(
            (local[0], local[1]), (left, right), step.gather(present), step.offset(present), scale
        )
        metrics = {
            "accuracy": (torch.where(present, hits, 0).sum(), present.sum()),
            "scale": (scale.detach(), torch.ones_like(scale)),
        }
        return Loss(torch.where(present, losses, 0).sum(), metrics)

    def _project(
        self, step: Step, encoder: str, view: str, present: Tensor
    ) -> Float[Tensor, "batch width"]:
        pooled = blank(step.student(encoder, view).pooled[:, 0], present)
        projected: Tensor = self.projectors[encoder](pooled, present)
        return F.normalize(full_precision(projected), dim=-1)

    def _present(self, step: Step) -> Bool[Tensor, " batch"]:
        left, right = (step.view(view).present[:, 0] for view in self.views)
        return left & right


def info_nce(
    local: tuple[Float[Tensor, "batch width"], Float[Tensor, "batch width"]],
    everyone: tuple[Float[Tensor, "samples width"], Float[Tensor, "samples width"]],
    present: Bool[Tensor, " samples"],
    offset: int,
    scale: Float[Tensor, ""],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Each local sample's loss and accuracy, averaged over the two directions.

    Args:
        local: this rank's features of the two encoders, of unit length.
        everyone: the features of all ranks.
        present: which samples are candidates; the loss of the others means nothing.
        offset: place of the first local sample among everyone's.
        scale: factor of the logits, 1 / temperature.
    """
    match = torch.arange(len(local[0]), device=present.device) + offset
    columns = torch.arange(len(present), device=present.device)
    allowed = present | (columns == match[:, None])
    there, there_hits = contrast(local[0], everyone[1], match, allowed, scale)
    back, back_hits = contrast(local[1], everyone[0], match, allowed, scale)
    return (there + back) / 2, (there_hits.to(there) + back_hits.to(back)) / 2
