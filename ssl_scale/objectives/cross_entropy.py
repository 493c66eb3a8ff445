"""Supervised classification with one class a sample."""

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_scale.errors import RecipeError
from ssl_scale.heads.classifier import Classifier
from ssl_scale.objectives.labels import labels_of, mean_over_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, FieldName, Given, HeadName, Probability, ViewName
from ssl_scale.types import Loss, Step


class CrossEntropy(Objective):
    """Cross-entropy of a linear classifier on pooled features, averaged over a sample's crops.

    Paper: Rethinking the Inception Architecture, arXiv 1512.00567, section 7, for `smoothing`
    (``epsilon``). Counts samples that have a label.

    Args:
        encoder: whose features are classified.
        label: field of class numbers; negative where a sample has none.
        view: named like the encoder unless told; may have several crops.
        smoothing: share of the target that is spread over all classes.
        head: a shared classifier, for other objectives to use; one of its own unless told.
        width: feature width of the encoder.
        classes: number of classes of each label field.
    """

    def __init__(
        self,
        encoder: EncoderName,
        label: FieldName,
        view: ViewName | None = None,
        smoothing: Probability = 0.0,
        head: HeadName | None = None,
        *,
        width: Given[int],
        classes: Given[Mapping[str, int]],
    ) -> None:
        super().__init__()
        self.encoder, self.view, self.label = encoder, view or encoder, label
        self.smoothing = smoothing
        self.shared_head, self.num_classes = head, classes[label]
        self.head = Classifier(self.num_classes, width=width) if head is None else None

    def count(self, step: Step) -> Tensor:
        """Samples that have a label and a crop."""
        return self._present(step).any(1).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's samples."""
        present, labels = self._present(step), labels_of(step, self.label)
        pooled = blank(step.student(self.encoder, self.view).pooled, present)
        logits = full_precision(self._classify(step, pooled))
        hits = (logits.argmax(-1) == labels[:, None]).to(logits.dtype)
        total = mean_over_crops(cross_entropy(logits, labels, self.smoothing), present).sum()
        accuracy = mean_over_crops(hits, present).sum(), present.any(1).sum()
        return Loss(total, {"accuracy": accuracy})

    def _classify(self, step: Step, pooled: Tensor) -> Tensor:
        if self.head is not None:
            own: Tensor = self.head(pooled)
            return own
        assert self.shared_head is not None
        logits: Tensor = step.apply(self.shared_head, pooled)
        if logits.shape[-1] != self.num_classes:
            raise RecipeError(
                f"heads.{self.shared_head}: must have the {self.num_classes} classes of field "
                f"{self.label!r}, but has {logits.shape[-1]}; set num_classes"
            )
        return logits

    def _present(self, step: Step) -> Bool[Tensor, "batch crops"]:
        return step.view(self.view).present & (labels_of(step, self.label) >= 0)[:, None]


def cross_entropy(
    logits: Float[Tensor, "batch crops classes"], labels: Int[Tensor, " batch"], smoothing: float
) -> Float[Tensor, "batch crops"]:
    """The loss of each crop; where the label is negative it means nothing."""
    each = labels.clamp(min=0)[:, None].expand(logits.shape[:2])
    return F.cross_entropy(logits.movedim(-1, 1), each, reduction="none", label_smoothing=smoothing)
