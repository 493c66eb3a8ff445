"""Supervised classification with any number of classes a sample."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ssl_scale.heads.classifier import Classifier
from ssl_scale.objectives.labels import labels_of, mean_over_crops
from ssl_scale.objectives.objective import Objective, blank, full_precision
from ssl_scale.part import EncoderName, FieldName, Given, ViewName
from ssl_scale.types import Loss, Step


class BinaryCrossEntropy(Objective):
    """One yes-or-no question a class, of a linear classifier on pooled features.

    Paper: Are we done with ImageNet?, arXiv 2006.07159 (sigmoid cross-entropy). Counts labels:
    a sample's known classes, each averaged over the sample's crops.

    Args:
        encoder: whose features are classified.
        label: field with a number a class: 1 yes, 0 no, negative where it is not known.
        view: named like the encoder unless told; may have several crops.
        width: feature width of the encoder.
        classes: number of classes of each label field.
    """

    def __init__(
        self,
        encoder: EncoderName,
        label: FieldName,
        view: ViewName | None = None,
        *,
        width: Given[int],
        classes: Given[Mapping[str, int]],
    ) -> None:
        super().__init__()
        self.encoder, self.view, self.label = encoder, view or encoder, label
        self.head = Classifier(classes[label], width=width)

    def count(self, step: Step) -> Tensor:
        """Known labels of samples that have a crop."""
        return self._known(step).sum()

    def forward(self, step: Step) -> Loss:
        """The loss summed over this rank's known labels."""
        present, known = step.view(self.view).present, self._known(step)
        pooled = blank(step.student(self.encoder, self.view).pooled, present)
        logits, labels = full_precision(self.head(pooled)), labels_of(step, self.label)
        losses = torch.where(known[:, None], binary_cross_entropy(logits, labels), 0).sum(-1)
        right = torch.where(known[:, None], (logits > 0) == (labels > 0)[:, None], False)
        hits = mean_over_crops(right.sum(-1).to(logits.dtype), present).sum()
        return Loss(mean_over_crops(losses, present).sum(), {"accuracy": (hits, known.sum())})

    def _known(self, step: Step) -> Bool[Tensor, "batch classes"]:
        present = step.view(self.view).present.any(1)
        return (labels_of(step, self.label) >= 0) & present[:, None]


def binary_cross_entropy(
    logits: Float[Tensor, "batch crops classes"], labels: Shaped[Tensor, "batch classes"]
) -> Float[Tensor, "batch crops classes"]:
    """The loss of each class; where the label is negative it means nothing."""
    truth = labels.clamp(min=0).to(logits.dtype)[:, None].expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
