"""DINO: the student agrees with the teacher's assignment of another crop to prototypes."""

from torch import Tensor

from ssl_scale.heads.assignment import Assignment
from ssl_scale.heads.prototypes import PrototypeHead
from ssl_scale.objectives.multi_crop import MultiCrop, across_crops, entropy
from ssl_scale.objectives.objective import Objective, blank, full_precision
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


class DINO(Objective):
    """Cross-entropy between the distributions of different crops over prototypes.

    Paper: Emerging Properties in Self-Supervised Vision Transformers, arXiv 2104.14294, equations 2
    and 3, averaged over the pairs of crops as in the authors' code (``g_theta_s`` is the student
    with `head`, ``tau_s`` is `temperature`, ``tau_t`` is `teacher_temperature`). With
    `SinkhornKnopp` and a mask of the global crops it is the image-level loss of DINOv2, arXiv
    2304.07193, section 4. Counts samples.

    Differs: a head with batch norm sees all crops as one population, and in the teacher uses the
    student's running statistics, since teachers are always in evaluation mode.

    Args:
        encoder: of student and teacher.
        head: makes the head of which the teacher keeps a copy.
        targets: what the teacher's scores become.
        teacher_temperature: of the targets, over progress.
        view: of two global crops; named like the encoder unless told.
        local_view: of local crops, which only the student sees; their number and size are free.
        mask: of mode ``replace``: what the student does not see of the global crops.
        teacher: where the targets come from; may be left out where there is one.
        temperature: of the student.
        frozen_until: fraction of training until which the prototypes stay as they are.
        width: feature width of the encoder.
    """

    taught = ("head",)

    def __init__(
        self,
        encoder: EncoderName,
        head: Spec[PrototypeHead],
        targets: Spec[Assignment],
        teacher_temperature: Schedule,
        view: ViewName | None = None,
        local_view: ViewName | None = None,
        mask: MaskName | None = None,
        teacher: TeacherName | None = None,
        temperature: Positive = 0.1,
        frozen_until: Probability = 0.0,
        *,
        width: Given[int],
    ) -> None:
        super().__init__()
        self.crops = MultiCrop(encoder, view or encoder, local_view, mask)
        self.teacher, self.temperature = teacher, temperature
        self.teacher_temperature, self.frozen_until = teacher_temperature, frozen_until
        self.head = head.build(width=width)
        self.targets = targets.build(prototypes=self.head.out)
        self.pairs = self.targets.pairs

    def count(self, step: Step) -> Tensor:
        """Samples that have all their crops."""
        return self.crops.present(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples."""
        present = self.crops.present(step)
        pooled, crops = self.crops.student(step, present)
        scores = self.head(pooled, crops, step.progress < self.frozen_until)
        log = (full_precision(scores) / self.temperature).log_softmax(-1)
        looked_at = step.teacher(self.crops.encoder, self.crops.view, by=self.teacher).pooled
        taught = step.apply("head", blank(looked_at, crops[:, :2]), crops[:, :2], by=self.teacher)
        temperature = self.teacher_temperature(step.progress)
        targets = self.targets(full_precision(taught), crops[:, :2], temperature, step.index)
        # Absent samples have zeros for targets, and finite logarithms.
        total = across_crops(targets, log).sum()
        return Loss(total, {"target_entropy": entropy(targets, crops[:, :2])})
