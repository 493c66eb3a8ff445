"""What every view maker is: a field of the batch and the samples' randomness in, a view out."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool
from torch import Tensor

from ssl_scale.part import Part
from ssl_scale.rng import Draw
from ssl_scale.types import Batch, Packed, Ragged, View


class ViewMaker(Part, ABC):
    """Makes one named view of a batch, on the batch's device.

    Attributes:
        field: the batch's field that the view shows.
    """

    field: str

    @abstractmethod
    def __call__(self, batch: Batch, draw: Draw) -> View:
        """The view; `draw` belongs to (run, epoch, sample, view), one seed a sample."""


def dense_field(batch: Batch, name: str) -> Tensor:
    """A field that has one shape for all samples.

    Raises:
        ValueError: the field is absent, or ragged.
    """
    value = _field(batch, name)
    if not isinstance(value, Tensor):
        raise ValueError(f"field {name!r} must be a tensor, but is ragged; is it a text field?")
    return value


def ragged_field(batch: Batch, name: str) -> Ragged:
    """A field whose samples have different lengths.

    Raises:
        ValueError: the field is absent, or of one shape.
    """
    value = _field(batch, name)
    if isinstance(value, Packed):
        raise ValueError(
            f"field {name!r} must be padded, but is packed; take `pack` off its source"
        )
    if not isinstance(value, Ragged):
        raise ValueError(
            f"field {name!r} must be ragged, but is a tensor {list(value.shape)}; "
            "is it an image field?"
        )
    if value.lengths.ndim > 1:
        raise ValueError(
            f"field {name!r} must differ in one length, but has {value.lengths.shape[1]} of them; "
            "is it a picture, or an array with several lengths?"
        )
    return value


def present_samples(batch: Batch, name: str) -> Bool[Tensor, " batch"]:
    """Which samples have the field; ``<field>.present`` is there only if some sample lacks it."""
    present = batch.fields.get(f"{name}.present")
    if present is None:
        return torch.ones(len(batch), dtype=torch.bool, device=batch.seeds.device)
    if not isinstance(present, Tensor):
        raise ValueError(f"field '{name}.present' must be a tensor, but is ragged")
    return present


def _field(batch: Batch, name: str) -> Tensor | Ragged | Packed:
    if name not in batch.fields:
        raise ValueError(
            f"a batch of source {batch.source!r} must have the field {name!r}, "
            f"but has {sorted(batch.fields)}"
        )
    return batch.fields[name]
