"""What supervised losses share: where labels are, and several crops of one labelled sample."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_scale.types import Step


def labels_of(step: Step, field: str) -> Tensor:
    """A label field of the batch.

    Raises:
        TypeError: the field is ragged.
    """
    labels = step.batch.fields[field]
    if not isinstance(labels, Tensor):
        raise TypeError(f"label field {field!r} must be a tensor, but is ragged")
    return labels


def mean_over_crops(
    x: Float[Tensor, "batch crops"], present: Bool[Tensor, "batch crops"]
) -> Float[Tensor, " batch"]:
    """Each sample's mean over its present crops; zero where it has none."""
    return torch.where(present, x, 0).sum(1) / present.sum(1).clamp(min=1)
