"""An objective that only looks at a teacher's features."""

import torch
from torch import Tensor

from ssl_scale.objectives.objective import Objective, blank
from ssl_scale.part import EncoderName, TeacherName
from ssl_scale.types import Loss, Step


class Imitation(Objective):
    """Squared distance to a teacher's pooled features of the same width."""

    def __init__(self, encoder: EncoderName, teacher: TeacherName) -> None:
        super().__init__()
        self.encoder, self.teacher = encoder, teacher

    def count(self, step: Step) -> Tensor:
        return step.view(self.encoder).present.sum()

    def forward(self, step: Step) -> Loss:
        present = step.view(self.encoder).present
        mine = blank(step.student(self.encoder).pooled, present)
        theirs = blank(step.teacher(self.encoder, by=self.teacher).pooled, present)
        return Loss(torch.where(present, (mine - theirs).square().mean(-1), 0).sum())
