"""Random masks: hide places of the grid uniformly, equally many in each crop."""

from typing import Literal

import torch

from ssl_scale.masking.sampler import MaskSampler
from ssl_scale.part import Ratio
from ssl_scale.rng import Draw
from ssl_scale.types import Layout, Mask


class RandomMask(MaskSampler):
    """Hides a fixed share of the grid, uniformly.

    Paper: Masked Autoencoders Are Scalable Vision Learners, arXiv 2111.06377, section 3.

    Args:
        ratio: share of places hidden; at least one is, and at least one is not.
        mode: ``drop`` leaves the hidden places out (MAE), ``replace`` fills them (SimMIM).
    """

    def __init__(self, ratio: Ratio = 0.75, mode: Literal["drop", "replace"] = "drop") -> None:
        self.ratio, self.mode = ratio, mode

    def __call__(self, layout: Layout, draw: Draw) -> Mask:
        """A mask for every crop; each hides the same number of places."""
        _, crops, tokens = layout.valid.shape
        if tokens < 2:
            raise ValueError(f"the grid must have at least 2 tokens, but is {layout.grid}")
        num_hidden = min(max(round(self.ratio * tokens), 1), tokens - 1)
        order = draw.permutation("order", tokens, crops)
        hidden = torch.zeros_like(layout.valid).scatter(-1, order[..., :num_hidden], True)
        return Mask(hidden, self.mode)
