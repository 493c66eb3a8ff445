"""Multi-block masks: several rectangles to predict, from what a large one shows besides them."""

import torch
from torch import Tensor

from ssl_scale.masking.rectangle import put_rectangle, sides
from ssl_scale.masking.sampler import MaskSampler
from ssl_scale.part import Count, Positive, Ratio
from ssl_scale.rng import Draw
from ssl_scale.types import Layout, Mask


class MultiBlockMask(MaskSampler):
    """Rectangles as target sets, and a context in the grid's own shape without them.

    Paper: Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture
    (I-JEPA), arXiv 2301.08243, section 3 and appendix A.1 (``M`` is `num_targets`).

    Differs: the authors' code draws sizes once for a batch and cuts all contexts to the shortest;
    here the sizes too belong to the crop (its targets share one), so that a sample's mask does not
    depend on its batch. A context left without any place becomes all places outside of the targets;
    no target is larger than `target_ratio` allows, so there always is one.

    Args:
        num_targets: rectangles to predict; they may overlap.
        target_ratio: smallest and largest share of the grid that one covers.
        target_aspect: smallest and largest height / width of one.
        context_ratio: smallest and largest share of the grid that the context covers, before the
            targets are taken out.
    """

    def __init__(
        self,
        num_targets: Count = 4,
        target_ratio: tuple[Ratio, Ratio] = (0.15, 0.2),
        target_aspect: tuple[Positive, Positive] = (0.75, 1.5),
        context_ratio: tuple[Positive, Positive] = (0.85, 1.0),
    ) -> None:
        ranges = {
            "target_ratio": target_ratio,
            "target_aspect": target_aspect,
            "context_ratio": context_ratio,
        }
        for name, (low, high) in ranges.items():
            if low > high:
                raise ValueError(f"{name} must rise, but is {[low, high]}")
        if context_ratio[1] > 1:
            raise ValueError(f"context_ratio must be at most 1, but is {list(context_ratio)}")
        covered = num_targets * target_ratio[1]
        if covered >= 1:
            raise ValueError(
                "num_targets * target_ratio[1] must be less than 1, or nothing is left to see, "
                f"but is {covered:g}"
            )
        self.num_targets, self.target_ratio = num_targets, target_ratio
        self.target_aspect, self.context_ratio = target_aspect, context_ratio

    def __call__(self, layout: Layout, draw: Draw) -> Mask:
        """A mask for every crop; contexts and targets of different crops differ in size."""
        if len(layout.grid) != 2:
            raise ValueError(f"the grid must have 2 axes, but is {layout.grid}")
        targets = self._targets(layout, draw.child("targets"))
        free = ~targets.any(2)
        context = self._context(layout, draw.child("context")) & free
        context = torch.where(context.any(-1, keepdim=True), context, free)
        valid = layout.valid
        return Mask(~context & valid, "drop", targets=targets & valid[:, :, None])

    def _targets(self, layout: Layout, draw: Draw) -> Tensor:
        crops, tokens = layout.valid.shape[1:]
        largest = int(self.target_ratio[1] * tokens)
        if not largest:
            raise ValueError(
                f"the grid must have at least {1 / self.target_ratio[1]:.0f} places for a target "
                f"of at most {self.target_ratio[1]:g} of it, but is {layout.grid}"
            )
        area = draw.between("area", *self.target_ratio, crops) * tokens
        slope = draw.between("aspect", *self.target_aspect, crops)
        height, width = sides(layout.grid, area, slope)
        # Where rounding made it too large, the longer side gives way.
        shorter = height.minimum(width)
        longer = (height + width - shorter).minimum((largest / shorter).floor())
        is_high = height > width
        height = torch.where(is_high, longer, shorter)
        width = torch.where(is_high, shorter, longer)
        blocks = [
            put_rectangle(layout.grid, height, width, draw.child("block", number)).flatten(-2)
            for number in range(self.num_targets)
        ]
        return torch.stack(blocks, 2)

    def _context(self, layout: Layout, draw: Draw) -> Tensor:
        crops, tokens = layout.valid.shape[1:]
        area = draw.between("area", *self.context_ratio, crops) * tokens
        height, width = sides(
            layout.grid, area, torch.full_like(area, layout.grid[0] / layout.grid[1])
        )
        return put_rectangle(layout.grid, height, width, draw).flatten(-2)
