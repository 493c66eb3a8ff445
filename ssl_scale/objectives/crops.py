"""What losses over two crops of a sample share."""

from jaxtyping import Bool
from torch import Tensor

from ssl_scale.types import Step, View


def both_crops(step: Step, view: str) -> Bool[Tensor, " batch"]:
    """Which samples have both crops of a view.

    Raises:
        ValueError: the view has not two crops.
    """
    present = step.view(view).present
    if present.shape[1] != 2:
        raise ValueError(f"view {view!r} must have 2 crops, but has {present.shape[1]}")
    return present.all(1)


def one_crop(view: View, crop: int) -> View:
    """A view of a single one of the crops."""
    keep = slice(crop, crop + 1)
    return view.but(
        values=view.values[:, keep],
        valid=view.valid[:, keep],
        side={name: value[:, keep] for name, value in view.side.items()},
    )
