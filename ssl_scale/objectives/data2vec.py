"""data2vec: predict what a teacher, who sees everything, makes of the hidden tokens."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.heads.predictor import Predictor
from ssl_scale.objectives.latent import TargetNorm, normalize_targets, regression
from ssl_scale.objectives.objective import Objective
from ssl_scale.part import (
    Count,
    EncoderName,
    Given,
    MaskName,
    Positive,
    Spec,
    TeacherName,
    ViewName,
)
from ssl_scale.types import Loss, Step


class Data2Vec(Objective):
    """Regression of the mean of the teacher's top layers, at the hidden tokens.

    Paper: data2vec, arXiv 2202.03555, section 3.3 and equation 1 (``K`` is `top`, ``a_hat`` the
    normalised output of a block, ``f`` the student with `predictor`). Counts hidden tokens.

    Differs: a layer's features are what leaves its block, in every modality, as in the paper for
    pictures; for text and speech it takes the feed-forward layer's output before the sum.

    Args:
        encoder: of student and teacher.
        mask: which tokens are hidden; of mode ``replace``.
        predictor: makes the head that only the student has; a linear layer in the paper.
        top: how many layers of the teacher, from the last, are averaged.
        target_norm: of each layer, before the mean: over a token's features (the paper, for text
            and pictures), over the batch, or none.
        beta: error at which the loss turns from a square to a line; None for squared error.
        view: the one that the mask covers unless told.
        teacher: where the targets come from; may be left out where there is one.
        width: feature width of the encoder.
        depth: layers of the encoder.
    """

    def __init__(
        self,
        encoder: EncoderName,
        mask: MaskName,
        predictor: Spec[Predictor],
        top: Count = 6,
        target_norm: TargetNorm = "layer",
        beta: Positive | None = 2.0,
        view: ViewName | None = None,
        teacher: TeacherName | None = None,
        *,
        width: Given[int],
        depth: Given[int],
    ) -> None:
        super().__init__()
        if top > depth:
            raise ValueError(f"top must be at most the encoder's {depth} layers, but is {top}")
        self.encoder, self.mask, self.view, self.teacher = encoder, mask, view, teacher
        self.target_norm, self.beta = target_norm, beta
        self.layers = tuple(f"layer.{number}" for number in range(depth - top, depth))
        self.reads = {encoder: self.layers}
        self.predictor = predictor.build(width=width)

    def count(self, step: Step) -> Tensor:
        """Hidden tokens."""
        return self._hidden(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's hidden tokens."""
        hidden = self._hidden(step)
        seen = step.student(self.encoder, self._view(step), mask=self.mask).tokens[hidden]
        predicted = self.predictor(seen, torch.ones_like(seen[:, 0], dtype=torch.bool))
        return Loss(regression(predicted, self.target(step)[hidden], self.beta).sum())

    @torch.no_grad()
    def target(self, step: Step) -> Float[Tensor, "batch crops tokens width"]:
        """What the student should say of every token."""
        features = step.teacher(self.encoder, self._view(step), by=self.teacher)
        layers = [
            normalize_targets(step, features.kept[name], features.valid, self.target_norm)
            for name in self.layers
        ]
        return torch.stack(layers).mean(0)

    def _view(self, step: Step) -> str:
        return self.view or next(iter(step.mask(self.mask)))

    def _hidden(self, step: Step) -> Bool[Tensor, "batch crops tokens"]:
        view = self._view(step)
        return step.mask(self.mask)[view].hidden & step.layout(self.encoder, view).valid
