"""iBOT: name the prototypes of hidden patches as the teacher, who sees them, does."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.heads.assignment import Assignment
from ssl_scale.heads.prototypes import PrototypeHead
from ssl_scale.objectives.multi_crop import entropy
from ssl_scale.objectives.objective import Objective, full_precision
from ssl_scale.optim.schedule import Schedule
from ssl_scale.part import (
    EncoderName,
    Given,
    MaskName,
    Positive,
    Probability,
    Spec,
    TeacherName,
    ViewName,
)
from ssl_scale.types import Loss, Step


class IBOT(Objective):
    """Cross-entropy between student and teacher on the tokens hidden from the student.

    Paper: Image BERT Pre-Training with Online Tokenizer, arXiv 2111.07832, equation 2. As in the
    authors' code and in DINOv2's, arXiv 2304.07193, section 4, the loss is the mean over a crop's
    hidden tokens, then over *all* crops, also those without a mask (which add 0): so each masked
    crop weighs the same, and `BlockMask.share` scales the loss. Counts crops.

    Differs: the head is this objective's own, as in DINOv2; iBOT shares it with the loss on [CLS],
    which here is `DINO`. Targets are assigned, and centred, over the hidden tokens only, as in
    DINOv2; iBOT centres over all of them.

    Args:
        encoder: of student and teacher.
        mask: which tokens are hidden; of mode ``replace``.
        head: makes the head of which the teacher keeps a copy.
        targets: what the teacher's scores become.
        teacher_temperature: of the targets, over progress.
        view: the one that the mask covers unless told.
        teacher: where the targets come from; may be left out where there is one.
        temperature: of the student.
        frozen_until: fraction of training until which the prototypes stay as they are.
        width: feature width of the encoder.
    """

    taught = ("head",)

    def __init__(
        self,
        encoder: EncoderName,
        mask: MaskName,
        head: Spec[PrototypeHead],
        targets: Spec[Assignment],
        teacher_temperature: Schedule,
        view: ViewName | None = None,
        teacher: TeacherName | None = None,
        temperature: Positive = 0.1,
        frozen_until: Probability = 0.0,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.encoder, self.mask, self.view, self.teacher = encoder, mask, view, teacher
        self.temperature, self.frozen_until = temperature, frozen_until
        self.teacher_temperature = teacher_temperature
        self.head = head.build(width=width)
        self.targets = targets.build(prototypes=self.head.out)
        self.pairs = self.targets.pairs

    def count(self, step: Step) -> Tensor:
        """Crops, masked or not."""
        return step.view(self._view(step)).present.sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's crops."""
        view = self._view(step)
        hidden = step.mask(self.mask)[view].hidden & step.layout(self.encoder, view).valid
        # The head is wide: only hidden tokens pass through it. It runs for none of them too.
        seen = step.student(self.encoder, view, mask=self.mask).tokens[hidden]
        looked_at = step.teacher(self.encoder, view, by=self.teacher).tokens[hidden]
        valid = torch.ones_like(seen[:, 0], dtype=torch.bool)
        scores = self.head(seen, valid, step.progress < self.frozen_until)
        taught = step.apply("head", looked_at, valid, by=self.teacher)
        temperature = self.teacher_temperature(step.progress)
        targets = self.targets(full_precision(taught), valid, temperature, step.index)
        log = (full_precision(scores) / self.temperature).log_softmax(-1)
        total = (ibot(targets, log) / crop_size(hidden)).sum()
        return Loss(total, {"target_entropy": entropy(targets, valid)})

    def _view(self, step: Step) -> str:
        return self.view or next(iter(step.mask(self.mask)))


def ibot(
    targets: Float[Tensor, "hidden prototypes"], log: Float[Tensor, "hidden prototypes"]
) -> Float[Tensor, " hidden"]:
    """Cross-entropy of each hidden token.

    Args:
        targets: the teacher's distributions.
        log: logarithms of the student's.
    """
    return -(targets * log).sum(-1)


def crop_size(hidden: Bool[Tensor, "batch crops tokens"]) -> Float[Tensor, " hidden"]:
    """For each hidden token, how many its crop has."""
    number = hidden.sum(-1, keepdim=True).expand_as(hidden)
    return number[hidden].to(torch.float32)
