"""I-JEPA: from a context, predict what a teacher makes of several blocks elsewhere."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.heads.jepa_predictor import JEPAPredictor
from ssl_scale.objectives.latent import TargetNorm, normalize_targets, regression
from ssl_scale.objectives.objective import Objective, blank
from ssl_scale.part import (
    EncoderName,
    Given,
    MaskName,
    Positive,
    Spec,
    TeacherName,
    ViewName,
)
from ssl_scale.types import Loss, Step


class IJEPA(Objective):
    """Regression of the teacher's features at the places of each target set.

    Paper: Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture,
    arXiv 2301.08243, section 3; smooth absolute error of the teacher's features under a layer norm
    as in the authors' code, where the paper writes a squared distance (`beta` None, `target_norm`
    ``none``). Counts the places of all target sets, a place once for each set that it is in.

    Args:
        encoder: of student and teacher.
        mask: context and target sets; of mode ``drop``.
        predictor: makes the head that only the student has.
        target_norm: of the teacher's features: over a token's features, over the batch, or none. On
            small data sets with pictures that lie alike, ``layer`` may learn places only.
        beta: error at which the loss turns from a square to a line; None for squared error.
        view: the one that the mask covers unless told.
        teacher: where the targets come from; may be left out where there is one.
        width: feature width of the encoder.
    """

    def __init__(
        self,
        encoder: EncoderName,
        mask: MaskName,
        predictor: Spec[JEPAPredictor],
        target_norm: TargetNorm = "layer",
        beta: Positive | None = 1.0,
        view: ViewName | None = None,
        teacher: TeacherName | None = None,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.mask, self.view, self.teacher = encoder, mask, view, teacher
        self.target_norm, self.beta = target_norm, beta
        self.predictor = predictor.build(width=width)

    def count(self, step: Step) -> Tensor:
        """Places of all target sets."""
        return self._targets(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's places."""
        view, targets = self._view(step), self._targets(step)
        seen = step.student(self.encoder, view, mask=self.mask)
        predicted: Tensor = self.predictor(
            blank(seen.tokens, seen.valid),
            seen.origin,
            seen.valid,
            targets,
            step.layout(self.encoder, view).grid,
        )
        wanted = self.target(step)[:, :, None].expand(-1, -1, targets.shape[2], -1, -1)
        return Loss(regression(predicted, wanted[targets], self.beta).sum())

    @torch.no_grad()
    def target(self, step: Step) -> Float[Tensor, "batch crops places width"]:
        """What the predictor should say of every place."""
        features = step.teacher(self.encoder, self._view(step), by=self.teacher)
        return normalize_targets(step, features.tokens, features.valid, self.target_norm)

    def _view(self, step: Step) -> str:
        return self.view or next(iter(step.mask(self.mask)))

    def _targets(self, step: Step) -> Bool[Tensor, "batch crops sets places"]:
        view = self._view(step)
        mask, valid = step.mask(self.mask)[view], step.layout(self.encoder, view).valid
        targets = mask.hidden[:, :, None] if mask.targets is None else mask.targets
        return targets & valid[:, :, None]
