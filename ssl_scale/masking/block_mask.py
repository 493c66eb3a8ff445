"""Block masks: hide rectangles of the grid, so that neighbours do not give the answer away."""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ssl_scale.masking.rectangle import put_rectangle, sides
from ssl_scale.masking.sampler import MaskSampler
from ssl_scale.part import Count, Positive, Probability, Ratio
from ssl_scale.rng import Draw
from ssl_scale.types import Layout, Mask


class BlockMask(MaskSampler):
    """Hides rectangles, one after the other, up to a share of the grid drawn for each crop.

    Paper: BEiT, arXiv 2106.08254, algorithm 1; ranges and `share` as in DINOv2, arXiv 2304.07193
    (``mask_ratio_min_max``, ``mask_sample_probability``).

    Differs: whether a crop is masked and how much is drawn for each crop by itself, where DINOv2
    masks exactly half of a batch at evenly spaced shares: so a sample's mask does not depend on its
    batch. The number of rectangles tried is fixed.

    Args:
        ratio: smallest and largest share of places hidden in a masked crop.
        share: probability that a crop is masked at all.
        aspect: smallest height / width of a rectangle; the largest is its inverse.
        min_block: smallest number of places that a rectangle aims at.
        num_tries: rectangles tried for each crop.
    """

    def __init__(
        self,
        ratio: tuple[Ratio, Ratio] = (0.1, 0.5),
        share: Probability = 0.5,
        aspect: Positive = 0.3,
        min_block: Count = 4,
        num_tries: Count = 40,
    ) -> None:
        if ratio[0] > ratio[1]:
            raise ValueError(f"ratio must rise, but is {list(ratio)}")
        if aspect > 1:
            raise ValueError(f"aspect must be at most 1, but is {aspect}")
        self.ratio, self.share, self.aspect = ratio, share, aspect
        self.min_block, self.num_tries = min_block, num_tries

    def __call__(self, layout: Layout, draw: Draw) -> Mask:
        """A mask for every crop; they hide different numbers of places."""
        if len(layout.grid) != 2:
            raise ValueError(f"the grid must have 2 axes, but is {layout.grid}")
        batch, crops, tokens = layout.valid.shape
        ratio = draw.between("ratio", *self.ratio, crops)
        wanted = (ratio * tokens).round().long() * draw.chance("share", self.share, crops)
        hidden = torch.zeros(
            batch, crops, *layout.grid, dtype=torch.bool, device=layout.valid.device
        )
        for attempt in range(self.num_tries):
            room = wanted - hidden.sum((-2, -1))
            block = self._rectangle(layout.grid, room, draw.child("block", attempt))
            new = (block & ~hidden).sum((-2, -1))
            accepted = (new > 0) & (new <= room)
            hidden = hidden | (block & accepted[..., None, None])
        return Mask(hidden.flatten(-2) & layout.valid, "replace")

    def _rectangle(
        self, grid: tuple[int, ...], room: Int[Tensor, "batch crops"], draw: Draw
    ) -> Bool[Tensor, "batch crops height width"]:
        """A rectangle of at most about `room` places in each crop."""
        crops = room.shape[1]
        largest = room.clamp(min=1).float()
        smallest = largest.clamp(max=self.min_block)
        area = smallest + (largest - smallest) * draw.uniform("area", crops)
        bound = -math.log(self.aspect)
        slope = draw.between("aspect", -bound, bound, crops).exp()
        return put_rectangle(grid, *sides(grid, area, slope), draw)
