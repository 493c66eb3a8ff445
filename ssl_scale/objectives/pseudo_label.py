"""Pseudo-labels: the class that is guessed with confidence is the label of an unlabelled sample."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.objectives.labels import mean_over_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, HeadName, Probability, TeacherName, ViewName
from ssl_scale.types import Loss, Step


class PseudoLabel(Objective):
    """Cross-entropy against the most likely class, where it is likely enough.

    Paper: FixMatch, arXiv 2001.07685, equation 4 (``tau`` is `threshold`). The guess is the mean of
    the probabilities over a sample's crops (MixMatch, arXiv 1905.02249, equation 6); with a
    `teacher` it is the teacher's (Mean Teacher, arXiv 1703.01780). Counts all samples that have a
    crop, confident or not, as the paper's mean over the unlabelled batch does. It is nothing
    without a supervised objective that trains the same `head`.

    Differs: the paper guesses from a weakly augmented crop and learns from a strong one; here both
    come from `view`, unless `guess_view` names another.

    Args:
        encoder: whose features are classified.
        head: the shared classifier that a supervised objective trains.
        view: what is learned from; named like the encoder unless told; may have several crops.
        guess_view: what the guess is made from; `view` unless told.
        teacher: who guesses; the student itself unless told.
        threshold: probability from which a guess counts.
    """

    def __init__(
        self,
        encoder: EncoderName,
        head: HeadName,
        view: ViewName | None = None,
        guess_view: ViewName | None = None,
        teacher: TeacherName | None = None,
        threshold: Probability = 0.95,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.view = encoder, head, view or encoder
        self.guess_view = guess_view or self.view
        self.teacher, self.threshold = teacher, threshold

    def count(self, step: Step) -> Tensor:
        """Samples that have a crop to learn from and one to guess from."""
        return self._present(step, self.view).any(1).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples."""
        present, seen = (self._present(step, view) for view in (self.view, self.guess_view))
        pooled = blank(step.student(self.encoder, self.view).pooled, present)
        logits = full_precision(step.apply(self.head, pooled))
        losses, sure = pseudo_label(logits, self._guess(step, seen), present, seen, self.threshold)
        return Loss(losses.sum(), {"confident": (sure.sum().to(losses), present.any(1).sum())})

    @torch.no_grad()
    def _guess(self, step: Step, seen: Bool[Tensor, "batch guesses"]) -> Tensor:
        """Logits from each crop that the guess is made from."""
        if self.teacher is None:
            pooled = step.student(self.encoder, self.guess_view, grad=False).pooled
        else:
            pooled = step.teacher(self.encoder, self.guess_view, by=self.teacher).pooled
        return full_precision(step.apply(self.head, blank(pooled, seen), by=self.teacher))

    def _present(self, step: Step, view: str) -> Bool[Tensor, "batch crops"]:
        """The crops of a view, of samples that have crops of both views."""
        views = [step.view(name).present for name in (self.view, self.guess_view)]
        return (
            step.view(view).present & torch.stack([each.any(1) for each in views]).all(0)[:, None]
        )


def pseudo_label(
    logits: Float[Tensor, "batch crops classes"],
    guesses: Float[Tensor, "batch guesses classes"],
    present: Bool[Tensor, "batch crops"],
    seen: Bool[Tensor, "batch guesses"],
    threshold: float,
) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Each sample's loss, and whether its guess was confident; without, the loss is zero.

    Args:
        logits: of the crops that are learned from.
        guesses: logits of the crops that the guess is made from.
        present: which crops to learn from there are.
        seen: which crops to guess from there are.
        threshold: probability from which a guess counts.
    """
    each = torch.where(seen[..., None], guesses.detach().softmax(-1), 0)
    likely, classes = (each.sum(1) / seen.sum(1, keepdim=True).clamp(min=1)).max(-1)
    sure = (likely >= threshold) & seen.any(1)
    targets = classes[:, None].expand(logits.shape[:2])
    losses = F.cross_entropy(logits.movedim(-1, 1), targets, reduction="none")
    return torch.where(sure, mean_over_crops(losses, present), 0), sure
