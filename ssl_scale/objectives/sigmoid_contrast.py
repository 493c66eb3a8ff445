"""Sigmoid contrast (SigLIP): every pair of the global batch is a yes-or-no question of its own.

There is no sum over candidates to share, so ranks pass one side's rows around a ring and compare
them with their own. No rank ever holds more logits than its own rows times another rank's.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ssl_scale.heads.projector import Projector
from ssl_scale.heads.scale_and_bias import ScaleAndBias
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, Given, Positive, Spec, ViewName
from ssl_scale.types import Loss, Step


class SigmoidContrast(Objective):
    """Whether two samples' features of two encoders belong together, asked of all pairs.

    Paper: Sigmoid Loss for Language Image Pre-Training, arXiv 2303.15343, section 3.2 and
    algorithm 1 (``x`` and ``y`` are the first and the second encoder's features). Counts samples
    that have both views, the paper's ``|B|``; of several crops the first is read.

    Args:
        between: encoders to align; their views show the same samples.
        projector: makes one head for each encoder.
        views: one for each encoder; named like the encoders unless told.
        scale: factor of the cosines at the start of training (``exp(t')``); learned.
        bias: added to them at the start of training (``b``), as most pairs are no match; learned.
        widths: feature width of every encoder.
    """

    pairs = True

    def __init__(
        self,
        between: tuple[EncoderName, EncoderName],
        projector: Spec[Projector],
        views: tuple[ViewName, ViewName] | None = None,
        scale: Positive = 10.0,
        bias: float = -10.0,
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
        self.scale_and_bias = ScaleAndBias(scale, bias)

    def count(self, step: Step) -> Tensor:
        """Samples that have both views."""
        return self._present(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples, each with the samples of all ranks."""
        scale, bias = self.scale_and_bias()
        left, right = (
            self._project(step, encoder, view)
            for encoder, view in zip(self.between, self.views, strict=True)
        )
        metrics = {
            "scale": (scale.detach(), torch.ones_like(scale)),
            "bias": (bias.detach(), torch.ones_like(bias)),
        }
        return Loss(sigmoid_contrast(left, step.ring(right), scale, bias), metrics)

    def _project(self, step: Step, encoder: str, view: str) -> Float[Tensor, "pairs width"]:
        present = self._present(step)
        pooled = blank(step.student(encoder, view).pooled[:, 0], present)
        projected: Tensor = self.projectors[encoder](pooled, present)
        return F.normalize(full_precision(projected[present]), dim=-1)

    def _present(self, step: Step) -> Bool[Tensor, " batch"]:
        left, right = (step.view(view).present[:, 0] for view in self.views)
        return left & right


def sigmoid_contrast(
    left: Float[Tensor, "pairs width"],
    ring: Iterator[Tensor],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """``-sum log sigmoid(z (scale x.y + bias))`` of each left row with each right one.

    Args:
        left: this rank's rows, of unit length.
        ring: right rows of every rank, of unit length; first this rank's, which match the left
            ones (``z`` is 1) where they have the same place.
        scale: factor of the cosines.
        bias: added to them.
    """
    total = torch.zeros_like(bias)
    for number, right in enumerate(ring):
        compared: Tensor = _Compare.apply(left, right, scale, bias, number == 0)  # type: ignore[no-untyped-call]
        total = total + compared
    return total


class _Compare(Function):
    """The loss of all pairs of some left and some right rows.

    Autograd would keep the logits of every hop for the backward pass. The gradients are no larger
    than the rows, so they are made here, while the logits are at hand.
    """

    @staticmethod
    def forward(
        ctx: Any, left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, match: bool
    ) -> Tensor:
        cosines = left @ right.T
        logits = scale * cosines + bias
        if match:
            same = torch.eye(len(left), dtype=torch.bool, device=left.device)
            logits = torch.where(same, -logits, logits)
        if any(ctx.needs_input_grad):
            slopes = logits.sigmoid()
            if match:
                slopes = torch.where(same, -slopes, slopes)
            steep = scale * slopes
            ctx.save_for_backward(
                steep @ right, steep.T @ left, (slopes * cosines).sum(), slopes.sum()
            )
        return F.softplus(logits).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradients[0] * slope for slope in ctx.saved_tensors), None)
