"""What every mask sampler is: a layout and the samples' randomness in, a mask out."""

from abc import ABC, abstractmethod

from ssl_scale.part import Part
from ssl_scale.rng import Draw
from ssl_scale.types import Layout, Mask


class MaskSampler(Part, ABC):
    """Draws which tokens are hidden; positions per sample, counts that set shapes per layout."""

    @abstractmethod
    def __call__(self, layout: Layout, draw: Draw) -> Mask:
        """A mask for every crop of the layout."""
